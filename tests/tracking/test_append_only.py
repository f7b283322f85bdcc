"""Files that only grow."""

from __future__ import annotations

from pathlib import Path

import pytest

from internvl_lab.tracking.append_only import complete_lines, rows_until

ROWS = [("stage1", 1), ("stage1", 2), ("stage2", 1), ("stage2", 2), ("report", 0)]


@pytest.mark.parametrize(
    ("stage", "step", "kept"),
    [
        ("stage2", 1, ROWS[:3]),
        ("stage2", 0, ROWS[:2]),  # a stage that starts anew loses its rows, not those before it
        ("stage2", 9, ROWS[:4]),  # what was written after the stage goes too
        ("stage1", 1, ROWS[:1]),
        ("stage3", 0, ROWS),  # not begun: nothing to cut
    ],
)
def test_rows_until(stage: str, step: int, kept: list[tuple[str, int]]) -> None:
    assert rows_until(ROWS, lambda row: row, stage, step) == kept


def test_only_complete_lines_count(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert complete_lines(path) == []
    path.write_text("one\ntwo \u2028 with a separator\nthr", encoding="utf-8")
    assert complete_lines(path) == ["one\n", "two \u2028 with a separator\n"]
