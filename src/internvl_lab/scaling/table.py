"""The study's table: one line a row, read by plots, notebooks and the next start of the study."""

from __future__ import annotations

import csv
import io
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from internvl_lab.atomic import write_atomic
from internvl_lab.errors import InternVLLabError
from internvl_lab.scaling.curves import read_history, run_numbers
from internvl_lab.scaling.rows import Row

FILE_NAME = "study.csv"
PENDING, DONE, FAILED = "pending", "done", "failed"
TASK_PREFIX = "task/"
"""Column prefix of the scores by task."""


@dataclass(frozen=True)
class RowResult:
    """Hold one line of the table."""

    label: str
    overrides: str
    """Joined as for a shell."""
    key: str = ""
    status: str = PENDING
    error: str = ""
    """Why the row failed, in one line."""
    attempts: int = 0
    run_dir: str = ""
    score: float | None = None
    blind: float | None = None
    standard_error: float | None = None
    """Of `score`, from the number of questions; the spread over seeds is not in it."""
    n: int | None = None
    looping: float | None = None
    """Share of answers that loop."""
    recompressed: float | None = None
    """Score on recompressed pictures."""
    train_s: float | None = None
    final_loss: float | None = None
    """Mean training loss over the last logged steps."""
    val_loss: float | None = None
    """Loss on the held-out mixture after the last step."""
    params: int | None = None
    params_vision: int | None = None
    params_language: int | None = None
    tokens: int | None = None
    """Of the language model, over all stages; likewise samples, tiles and required FLOPs."""
    samples: int | None = None
    tiles: int | None = None
    flops: float | None = None
    seed: int | None = None
    revision: str = ""
    tasks: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def pending(cls, row: Row) -> RowResult:
        """Start the line of a row that has not run."""
        counts = {name: getattr(row, name) for name in ("params", "params_vision", "params_language")}
        return cls(row.label, shlex.join(row.overrides), row.key, **counts)

    def belongs_to(self, row: Row) -> bool:
        """Say whether this line is about the same run as `row`."""
        return (self.label, self.overrides, self.key) == (row.label, shlex.join(row.overrides), row.key)


def read_run(result: RowResult, run_dir: Path) -> RowResult:
    """Fill a line from what its run left: scores where it was evaluated, losses, and what it consumed.

    Raises:
        InternVLLabError: the run has not ended, or left a report of another shape.
    """
    path = run_dir / "finished.json"
    report = run_dir / "metrics.json"
    try:
        finished = json.loads(path.read_text(encoding="utf-8"))
        found = run_numbers(read_history(run_dir))
        result = replace(
            result,
            status=DONE,
            error="",
            run_dir=str(run_dir),
            seed=finished.get("seed"),
            train_s=finished["train_s"],
            final_loss=found["final_loss"],
            val_loss=found["val_loss"],
            tokens=_whole(found["tokens"]),
            samples=_whole(found["samples"]),
            tiles=_whole(found["tiles"]),
            flops=found["flops"] or None,
        )
        return _with_scores(result, json.loads(report.read_text(encoding="utf-8"))) if report.exists() else result
    except FileNotFoundError as error:
        raise InternVLLabError(f"the run ended without {path}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InternVLLabError(f"{run_dir} holds no report of a run: {type(error).__name__} {error}") from error


def _whole(count: float | None) -> int | None:
    """Return a counter as the table holds it: none where nothing was counted."""
    return int(count) if count else None


def _with_scores(result: RowResult, metrics: Mapping[str, Any]) -> RowResult:
    """Add what the evaluation found."""
    overall, tasks = metrics["overall"], metrics["tasks"]
    return replace(
        result,
        score=overall["score"],
        blind=overall["blind"],
        standard_error=standard_error(tasks),
        n=overall["n"],
        looping=metrics.get("looping", {}).get("overall"),
        recompressed=metrics.get("recompressed", {}).get("overall", {}).get("score"),
        tasks={name: task["score"] for name, task in tasks.items()},
    )


def standard_error(tasks: Mapping[str, Mapping[str, Any]]) -> float:
    """Return the standard error of the mean over tasks: sqrt(sum of p (1 - p) / n) / number of tasks.

    Args:
        tasks: name to {"score": p, "n": n}.
    """
    variances = [task["score"] * (1 - task["score"]) / max(task["n"], 1) for task in tasks.values()]
    return math.sqrt(sum(variances)) / max(len(variances), 1)


_TEXT = ("label", "overrides", "key", "status", "error", "run_dir", "revision")
_LATER_COUNTS = ("params_vision", "params_language", "tokens", "samples", "tiles", "seed")
_NEWER = {"looping", "recompressed", "val_loss", "flops", *_LATER_COUNTS}
"""Columns that tables of earlier versions lack."""
_WHOLE = ("attempts", "n", "params", *_LATER_COUNTS)
_COLUMNS = tuple(f.name for f in fields(RowResult) if f.name != "tasks")


def write_table(study_dir: Path, results: Sequence[RowResult]) -> Path:
    """Write `study.csv`, all of it or nothing; floats keep every bit."""
    tasks = list(dict.fromkeys(name for result in results for name in result.tasks))
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*_COLUMNS, *(TASK_PREFIX + name for name in tasks)])
    for result in results:
        cells = [getattr(result, column) for column in _COLUMNS] + [result.tasks.get(name) for name in tasks]
        writer.writerow(["" if cell is None else cell for cell in cells])
    study_dir.mkdir(parents=True, exist_ok=True)
    write_atomic(study_dir / FILE_NAME, buffer.getvalue())
    return study_dir / FILE_NAME


def read_table(path: Path) -> list[RowResult]:
    """Read `study.csv` (or the folder it lies in); empty when there is none.

    Raises:
        InternVLLabError: the file is no study's table.
    """
    path = path / FILE_NAME if path.is_dir() else path
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        missing = set(_COLUMNS) - _NEWER - set(reader.fieldnames or ())
        if missing:
            raise InternVLLabError(f"{path} is no study's table: column {sorted(missing)[0]!r} is missing")
        return [_parse(line) for line in reader]


def _parse(line: Mapping[str, str]) -> RowResult:
    """Turn the texts of one line into a result."""
    values: dict[str, Any] = {}
    for column in _COLUMNS:
        text = line.get(column, "")
        if column in _TEXT:
            values[column] = text
        elif text:
            values[column] = int(text) if column in _WHOLE else float(text)
    scores = {name.removeprefix(TASK_PREFIX): text for name, text in line.items() if name.startswith(TASK_PREFIX)}
    return RowResult(**values, tasks={name: float(text) for name, text in scores.items() if text})
