"""Turn the logged answers of a task into its scores, and into the figure that a table of the report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from internvl_lab.evaluation.answer_log import Line
from internvl_lab.evaluation.answering import has_answer
from internvl_lab.evaluation.judging.protocols import Opinions, protocol_of
from internvl_lab.evaluation.metrics import METRICS
from internvl_lab.evaluation.metrics.pairs import average
from internvl_lab.evaluation.metrics.yes_no import COGNITION, PERCEPTION
from internvl_lab.evaluation.suites import Suite
from internvl_lab.text.repetition import looping_share

MME_PER_TASK = 200.0
CIDER_FULL = 10.0
OCRBENCH_FULL = 1000


@dataclass(frozen=True)
class Score:
    """Hold what is known about one task."""

    suite: Suite
    scores: Mapping[str, float]
    """All scores of the metric, its own name first; empty where nothing could be scored."""
    blind_scores: Mapping[str, float]
    n: int
    """Scored answers."""
    num_skipped: int
    """Questions that could not be asked."""
    num_unscored: int
    """Answers without a reference."""
    looping: float
    """Share of answers that repeat themselves, the report's failure mode (`text.repetition.looping_share`)."""
    errors: tuple[tuple[str, str], ...] = ()
    """(question, why) of the skipped ones."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    judge: str = ""
    """Who judged, where a judge did."""

    @property
    def share(self) -> float | None:
        """Return the score as a share of full marks, 0 to 1; None where there is none."""
        return as_share(self.suite.metric, self.scores)

    @property
    def blind(self) -> float | None:
        """Return the same without pictures; None without a blind run."""
        return as_share(self.suite.metric, self.blind_scores)

    @property
    def decimals(self) -> int:
        """Return the digits behind the point in the tables: grades of a few points have two."""
        return 2 if self.suite.judged and protocol_of(self.suite.name, {}).factor == 1 else 1

    @property
    def shown(self) -> float | None:
        """Return the figure as the report's tables print it: MME and OCRBench in points, all others times 100."""
        if not self.scores:
            return None
        first = next(iter(self.scores.values()))
        if self.suite.judged:
            return first * protocol_of(self.suite.name, {}).factor
        if self.suite.metric == "mme":
            return first
        if self.suite.metric == "ocrbench":
            return self.scores["accuracy"] * OCRBENCH_FULL
        return 100 * first


def as_share(metric: str, scores: Mapping[str, float]) -> float | None:
    """Bring the first score of a metric to 0..1; a judge's score is left as it is."""
    if not scores:
        return None
    if metric == "mme":
        subtasks = sum(name in scores for name in (*PERCEPTION, *COGNITION))
        return scores["mme"] / (MME_PER_TASK * subtasks)
    if metric == "ocrbench":
        return scores["accuracy"]
    first = next(iter(scores.values()))
    return first / CIDER_FULL if metric == "cider_d" else first


def score_suite(
    suite: Suite, lines: Sequence[Line], settings: Mapping[str, Any], judged: Opinions | None = None
) -> Score:
    """Score a task from its log.

    Args:
        suite: the task.
        lines: its answers.
        settings: what produced them.
        judged: a judge's scores, for the sets that need one.
    """
    asked = [line for line in lines if not line.get("error")]
    if suite.judged:
        known = [judged.scores[line["id"]] for line in asked if judged and line["id"] in judged.scores]
        scores = protocol_of(suite.name, dict(suite.settings)).summarise(known) if known else {}
        scored = asked[: len(known)]
    else:
        scored = [line for line in asked if has_answer(line["reference"])]
        scores = _apply(suite.metric, scored, "prediction")
    return Score(
        suite,
        scores,
        {} if suite.judged else _apply(suite.metric, scored, "blind_prediction"),
        len(scored),
        len(lines) - len(asked),
        len(asked) - len(scored),
        looping_share(line["prediction"] for line in asked),
        tuple((line["id"], line["error"]) for line in lines if line.get("error")),
        settings,
        judged.judge if judged else "",
    )


def _apply(metric: str, lines: Sequence[Line], name: str) -> dict[str, float]:
    """Apply a metric to one kind of answers; empty where a line has none."""
    if not lines or any(line.get(name) is None for line in lines):
        return {}
    return METRICS[metric][0]([line[name] for line in lines], [line["reference"] for line in lines])


def summarise(scores: Sequence[Score]) -> dict[str, Any]:
    """Return {"overall": {"score", "blind", "n"}, "tasks": {name: {"score", "blind", "n", ...}}}.

    Scores are shares of full marks; "metrics" holds them in the benchmark's own units. The overall score is the
    unweighted mean over the tasks that have one (a judge's scores, whose scale is theirs, stay out).
    """
    tasks = {
        score.suite.name: {
            "score": score.share,
            "blind": score.blind,
            "n": score.n,
            "skipped": score.num_skipped,
            "unscored": score.num_unscored,
            "looping": score.looping,
            "metric": score.suite.metric,
            "metrics": dict(score.scores),
            **({"judge": score.judge} if score.judge else {}),
        }
        for score in scores
    }
    counted = [score for score in scores if score.share is not None and not score.suite.judged]
    blind = [score.blind for score in counted]
    known = [value for value in blind if value is not None]
    overall = {
        "score": average(score.share or 0.0 for score in counted) if counted else None,
        "blind": average(known) if known and len(known) == len(blind) else None,
        "n": sum(score.n for score in scores),
    }
    return {"overall": overall, "tasks": tasks}
