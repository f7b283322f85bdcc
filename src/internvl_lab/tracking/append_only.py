"""Rules shared by the files that only grow: complete lines, and cutting back to a checkpoint.

A killed run leaves rows that its newest checkpoint has never seen, and perhaps half a line. Both go
before the run continues, so that the finished file equals that of an uninterrupted run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

Row = TypeVar("Row")


def complete_lines(path: Path) -> list[str]:
    """Return the lines of `path` that end in a newline; none where the file does not exist."""
    if not path.is_file():
        return []
    *lines, _torn = path.read_text(encoding="utf-8").split("\n")
    return [line + "\n" for line in lines]


def rows_until(rows: Iterable[Row], position: Callable[[Row], tuple[str, int]], stage: str, step: int) -> list[Row]:
    """Keep what lies before or at a point of a run.

    Args:
        rows: in the order in which they were written.
        position: gives a row's (stage, step).
        stage, step: the point; rows of this stage up to and including `step` stay.

    Returns:
        Rows of earlier stages, and those of `stage` up to `step`. Rows of other stages that come after
        the first row of `stage` are dropped: they were written later.
    """
    kept: list[Row] = []
    reached = False
    for row in rows:
        row_stage, row_step = position(row)
        reached = reached or row_stage == stage
        if (row_stage == stage and row_step <= step) or not reached:
            kept.append(row)
    return kept
