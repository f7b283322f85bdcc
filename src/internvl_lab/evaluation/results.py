"""What an evaluation leaves: predictions, scores, examples; and the files that make it resumable.

::

    predictions/settings.json      what produced the answers (weights, tokenizer, data, tiles, limits)
    predictions/<task>.jsonl       one line a question; complete, because it is moved into place when finished
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from internvl_lab.atomic import write_atomic
from internvl_lab.text.repetition import looping_share

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """Hold one question with its answers."""

    key: str
    question: str
    reference: str
    prediction: str
    correct: bool
    blind_prediction: str | None = None
    """Answer without the pictures; None when no blind run was asked for."""
    blind_correct: bool | None = None
    error: str = ""
    """Why the question could not be asked; such a sample is counted, and left out of the score."""


@dataclass(frozen=True)
class TaskResult:
    """Hold the predictions of one task."""

    name: str
    metric: str
    predictions: tuple[Prediction, ...]

    @property
    def answered(self) -> tuple[Prediction, ...]:
        """Return the predictions that count."""
        return tuple(p for p in self.predictions if not p.error)

    @property
    def n(self) -> int:
        """Count the predictions that count."""
        return len(self.answered)

    @property
    def num_skipped(self) -> int:
        """Count the questions that could not be asked."""
        return len(self.predictions) - self.n

    @property
    def score(self) -> float:
        """Return the share of right answers, 0 when nothing was answered."""
        return sum(p.correct for p in self.answered) / max(self.n, 1)

    @property
    def blind(self) -> float | None:
        """Return the share of right answers without pictures; None without a blind run."""
        if any(p.blind_correct is None for p in self.answered):
            return None
        return sum(bool(p.blind_correct) for p in self.answered) / max(self.n, 1)

    @property
    def looping(self) -> float:
        """Return the share of answers that loop (`text.repetition.looping_share`)."""
        return looping_share(p.prediction for p in self.answered)


@dataclass(frozen=True)
class Example:
    """Hold one prediction with its pictures, for the contact sheet."""

    task: str
    prediction: Prediction
    images: tuple[Image.Image, ...]


@dataclass(frozen=True)
class EvaluationResult:
    """Hold the results of all tasks and the settings that produced them."""

    tasks: tuple[TaskResult, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    recompressed: EvaluationResult | None = None
    """The same on recompressed pictures, where `evaluation.jpeg_quality` asks for it."""

    @property
    def score(self) -> float:
        """Average the scores over tasks, unweighted."""
        return sum(task.score for task in self.tasks) / max(len(self.tasks), 1)

    @property
    def blind(self) -> float | None:
        """Average the blind scores over tasks, unweighted; None without a blind run."""
        blind = [task.blind for task in self.tasks]
        known = [score for score in blind if score is not None]
        return sum(known) / len(known) if known and len(known) == len(blind) else None

    @property
    def n(self) -> int:
        """Count the scored answers of all tasks."""
        return sum(task.n for task in self.tasks)

    @property
    def looping(self) -> float:
        """Return the share of all answers that loop."""
        return looping_share(p.prediction for task in self.tasks for p in task.answered)

    def metrics(self) -> dict[str, Any]:
        """Return {"overall": {"score", "blind", "n"}, "tasks": {name: the same}, "looping": {"overall", name: ...}}.

        With recompressed pictures also {"recompressed": {"quality", "overall", "tasks"}}.
        """
        rows: dict[str, TaskResult] = {task.name: task for task in self.tasks}
        looping = {"overall": self.looping, **{name: task.looping for name, task in rows.items()}}
        scores = {name: _scores(task) for name, task in rows.items()}
        metrics = {"overall": _scores(self), "tasks": scores, "looping": looping}
        if (again := self.recompressed) is not None:
            shown = {name: value for name, value in again.metrics().items() if name in ("overall", "tasks")}
            metrics["recompressed"] = {"quality": again.settings["jpeg_quality"], **shown}
        return metrics


def _scores(result: TaskResult | EvaluationResult) -> dict[str, float | int | None]:
    """Return score, blind and n."""
    return {"score": result.score, "blind": result.blind, "n": result.n}


class PredictionStore:
    """Keep finished tasks on disk, so that a killed evaluation repeats none of them.

    Args:
        folder: `predictions/` of the run; None keeps nothing.
        settings: everything the answers depend on; when it differs from what the folder holds,
            the old predictions are removed.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        if folder is None:
            return
        stamp = json.dumps(settings, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        path = folder / "settings.json"
        if path.exists() and path.read_text(encoding="utf-8") == stamp:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.jsonl"):
            logger.info("removing %s: made by other weights or settings", old)
            old.unlink()
        write_atomic(path, stamp)

    def load(self, task: str) -> tuple[Prediction, ...] | None:
        """Return the predictions of a finished task, or None."""
        if self.folder is None or not (path := self._path(task)).exists():
            return None
        with path.open(encoding="utf-8") as lines:
            return tuple(Prediction(**json.loads(line)) for line in lines)

    def save(self, task: str, predictions: tuple[Prediction, ...]) -> None:
        """Write the predictions of a finished task."""
        if self.folder is not None:
            lines = [json.dumps(asdict(p), ensure_ascii=False) + "\n" for p in predictions]
            write_atomic(self._path(task), "".join(lines))

    def _path(self, task: str) -> Path:
        """Return the file of a task."""
        if self.folder is None:
            raise ValueError("this store has no folder")
        return self.folder / f"{task}.jsonl"
