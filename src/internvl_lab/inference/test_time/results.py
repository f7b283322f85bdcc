"""Turn records and scores into what a reader compares: a table of results, curves over N, and their costs.

| row          | what                                                                        | cost of a question      |
|--------------|-----------------------------------------------------------------------------|-------------------------|
| `direct`     | one greedy answer                                                           | prompt + answer         |
| `cot`        | one greedy answer with its steps                                            | prompt + answer         |
| `sample`     | one drawn answer, averaged over all                                         | prompt + answer         |
| curves at N  | majority, weighted, best_of_n of N drawn answers; pass = any of N is right  | prompt once + N answers |

Several checkpoints are an ensemble: a question's answers are pooled, and `direct`, `cot` and `sample` are means over
checkpoints. Scores are shares of right answers over questions, tasks pooled in `all`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from internvl_lab.config import TestTimeConfig
from internvl_lab.inference.test_time.critics import Scores
from internvl_lab.inference.test_time.curves import CURVES, Band, Outcome, bootstrap, curve, grid, is_exact
from internvl_lab.inference.test_time.runner import SAMPLES
from internvl_lab.inference.test_time.samples import Place, Record

ALL = "all"


@dataclass(frozen=True)
class Row:
    """Hold one result."""

    name: str
    num_samples: int
    score: Band
    delta: Band
    """Score less that of `direct`, question by question."""
    tokens: float
    """Generated tokens a question."""
    flops: float
    """Operations a question, prompt and critic included."""
    looping: float
    """Share of answers that loop."""
    boxed: float
    """Share of answers with the boxed last line."""


@dataclass(frozen=True)
class Curve:
    """Hold one score as a function of N."""

    name: str
    sizes: tuple[int, ...]
    bands: tuple[Band, ...]
    tokens: tuple[float, ...]
    flops: tuple[float, ...]
    exact: tuple[bool, ...]
    """Whether all subsets of that size were counted, or some were drawn."""


@dataclass(frozen=True)
class Result:
    """Hold the results of one task, or of all."""

    task: str
    num_questions: int
    num_skipped: int
    rows: tuple[Row, ...]
    curves: tuple[Curve, ...]

    def row(self, name: str) -> Row | None:
        """Return a row by its name, or None."""
        return next((row for row in self.rows if row.name == name), None)


def summarise(config: TestTimeConfig, records: Mapping[Place, Record], scores: Mapping[Place, Scores]) -> list[Result]:
    """Compute the results of all tasks together (`all`, first) and of each.

    Args:
        config: checkpoints, seed and bootstrap draws; records of other checkpoints are left out.
        records: by place.
        scores: the critic's, for each record of drawn answers.
    """
    kept = [record for record in records.values() if record.checkpoint in config.checkpoint]
    tasks = list(dict.fromkeys(record.task for record in kept))
    named = [(ALL, kept)] if len(tasks) != 1 else []
    named += [(task, [record for record in kept if record.task == task]) for task in tasks]
    return [_summarise_task(config, name, of, scores) for name, of in named]


def _summarise_task(
    config: TestTimeConfig, name: str, records: Sequence[Record], scores: Mapping[Place, Scores]
) -> Result:
    questions = _by_question(records)
    # a question that one checkpoint could not be asked would be compared over fewer answers
    whole = {place: of for place, of in questions.items() if not any(record.error for record in of)}
    answered = [record for of in whole.values() for record in of]
    rows: list[Row] = []
    curves: list[Curve] = []
    if whole:
        direct = _shares([record for record in answered if record.arm == "direct"])
        for arm in ("direct", "cot", SAMPLES):
            if mine := [record for record in answered if record.arm == arm]:
                rows.append(_single_row("sample" if arm == SAMPLES else arm, mine, direct, config))
        drawn = [[record for record in of if record.arm == SAMPLES] for of in whole.values()]
        if drawn[0]:
            found = _curves(config, drawn, scores)
            curves = [one for one, _ in found]
            rows += [_curve_row(one, values, direct, drawn, config) for one, values in found]
    return Result(name, len(whole), len(questions) - len(whole), tuple(rows), tuple(curves))


def _by_question(records: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    """Group records by (task, key), in order of appearance."""
    questions: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        questions.setdefault((record.task, record.key), []).append(record)
    return questions


def _shares(records: Sequence[Record]) -> NDArray[np.float64]:
    """Return the share of right answers of each question, (Q, 1)."""
    questions = _by_question(records).values()
    return np.array([[np.mean([sample.right for record in of for sample in record.samples])] for of in questions])


def _bands(values: NDArray[np.float64], direct: NDArray[np.float64], config: TestTimeConfig) -> tuple[Band, Band]:
    """Average shares (Q, 1), and what they gain over the direct answers' (Q, 1)."""
    (score,) = bootstrap(values, config.bootstrap_draws, config.seed)
    (delta,) = bootstrap(values - direct, config.bootstrap_draws, config.seed)
    return score, delta


def _single_row(name: str, records: Sequence[Record], direct: NDArray[np.float64], config: TestTimeConfig) -> Row:
    """Average single answers: over the samples of a question, then over questions."""
    score, delta = _bands(_shares(records), direct, config)
    samples = [sample for record in records for sample in record.samples]
    flops = np.mean([record.prompt_flops + np.mean([s.flops for s in record.samples]) for record in records])
    return Row(
        name=name,
        num_samples=1,
        score=score,
        delta=delta,
        tokens=float(np.mean([sample.num_tokens for sample in samples])),
        flops=float(flops),
        looping=float(np.mean([sample.looping for sample in samples])),
        boxed=float(np.mean([sample.how == "boxed" for sample in samples])),
    )


def _curves(
    config: TestTimeConfig, drawn: Sequence[Sequence[Record]], scores: Mapping[Place, Scores]
) -> list[tuple[Curve, NDArray[np.float64]]]:
    """Compute all curves over pooled answers; with each, its value at the largest N by question, (Q, 1)."""
    outcomes = [_outcome(of, scores) for of in drawn]
    total = min(len(outcome.answers) for outcome in outcomes)
    sizes = grid(total)
    flat = [record for of in drawn for record in of]
    a_sample = float(np.mean([s.num_tokens for record in flat for s in record.samples]))
    sample_flops = float(np.mean([s.flops for record in flat for s in record.samples]))
    prompt_flops = sum(record.prompt_flops for record in flat) / len(drawn)
    critic_flops = sum(scores[record.place].flops for record in flat) / len(drawn) / total
    curves = []
    for name in CURVES:
        judged = critic_flops if name in ("weighted", "best_of_n") else 0.0
        values = curve(name, outcomes, sizes)
        one = Curve(
            name=name,
            sizes=tuple(sizes),
            bands=tuple(bootstrap(values, config.bootstrap_draws, config.seed)),
            tokens=tuple(a_sample * size for size in sizes),
            flops=tuple(prompt_flops + (sample_flops + judged) * size for size in sizes),
            exact=tuple(name != "weighted" or is_exact(total, size) for size in sizes),
        )
        curves.append((one, values[:, -1:]))
    return curves


def _outcome(records: Sequence[Record], scores: Mapping[Place, Scores]) -> Outcome:
    """Pool the answers of all checkpoints to one question, taking turns, so that a tie favours none of them."""
    columns = [zip(record.samples, scores[record.place].scores, strict=True) for record in records]
    pooled = [pair for turn in zip(*columns, strict=True) for pair in turn]
    return Outcome(
        tuple(sample.answer for sample, _ in pooled),
        tuple(sample.right for sample, _ in pooled),
        tuple(score for _, score in pooled),
    )


def _curve_row(
    found: Curve,
    values: NDArray[np.float64],
    direct: NDArray[np.float64],
    drawn: Sequence[Sequence[Record]],
    config: TestTimeConfig,
) -> Row:
    """Take a curve's last point as a row."""
    score, delta = _bands(values, direct, config)
    samples = [sample for of in drawn for record in of for sample in record.samples]
    return Row(
        name=found.name,
        num_samples=found.sizes[-1],
        score=score,
        delta=delta,
        tokens=found.tokens[-1],
        flops=found.flops[-1],
        looping=float(np.mean([sample.looping for sample in samples])),
        boxed=float(np.mean([sample.how == "boxed" for sample in samples])),
    )


def to_json(results: Sequence[Result]) -> dict[str, Any]:
    """Return {task: {"n", "skipped", "rows": {name: ...}, "curves": {name: {"N", "score", "low", "high", ...}}}}."""
    return {result.task: _task_json(result) for result in results}


def _task_json(result: Result) -> dict[str, Any]:
    rows = {row.name: {k: v for k, v in asdict(row).items() if k != "name"} for row in result.rows}
    curves = {
        found.name: {
            "N": list(found.sizes),
            "score": [band.mean for band in found.bands],
            "low": [band.low for band in found.bands],
            "high": [band.high for band in found.bands],
            "tokens": list(found.tokens),
            "flops": list(found.flops),
            "exact": list(found.exact),
        }
        for found in result.curves
    }
    return {"n": result.num_questions, "skipped": result.num_skipped, "rows": rows, "curves": curves}
