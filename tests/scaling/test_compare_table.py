"""The table of a comparison."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from internvl_lab.scaling.compare_table import (
    compact,
    comparison_table,
    gain,
    shown_columns,
    table_cells,
    task_cells,
)
from internvl_lab.scaling.runs import Run

VALUES = {
    "score": 0.625,
    "standard_error": 0.01,
    "blind": 0.125,
    "val_loss": 0.25,
    "final_loss": 0.3,
    "train_s": 60.0,
    "params": 1_815_296.0,
    "tokens": 2_847_009.0,
    "flops": 29_256_252_795_904.0,
    "seed": 3.0,
}
SMALL = Run("small", {"score": 0.5}, {"ocr": 0.5})
LARGE = Run("internvit_300m", VALUES, {"ocr": 0.75, "chart": 0.25}, devices=2)
FAILED = Run("huge", status="failed")


def test_cells() -> None:
    head, rows = table_cells([SMALL, LARGE, FAILED], SMALL)
    large = dict(zip(head, rows[1], strict=True))
    assert large == {
        "row": "internvit_300m",
        "params": "1.82M",
        "score ± s.e.": "0.625 ± 0.010",
        "gain": "+0.125",
        "blind": "0.125",
        "val loss": "0.2500",
        "loss": "0.3000",
        "tokens": "2.85M",
        "FLOPs": "29.3T",
        "hours": "0.03",
        "train s": "60",
        "seed": "3",
    }
    assert rows[0][2] == "0.500" and rows[2][:4] == ["huge", "-", "failed", "-"]


def test_columns_without_a_number_are_left_out() -> None:
    assert [c.head for c in shown_columns([SMALL], SMALL)] == ["row", "score ± s.e."]
    loops = replace(SMALL, values={"score": 0.5, "looping": 0.125})
    assert [c.head for c in shown_columns([loops], loops)][-1] == "loops"
    never = replace(SMALL, values={"score": 0.5, "looping": 0.0})
    assert "loops" not in [c.head for c in shown_columns([never], never)]


def test_a_terminal_of_80_columns_shows_label_and_numbers() -> None:
    console = Console(file=io.StringIO(), width=80)
    looping = replace(LARGE, values={**VALUES, "looping": 0.5})
    console.print(comparison_table([SMALL, looping, FAILED], SMALL, "6B against 300M"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for cell in ("6B against 300M", "internvit_300m", "1.82M", "0.625 ± 0.010", "+0.125", "0.2500", "29.3T", "failed"):
        assert cell in text
    assert "…" not in text


def test_brackets_in_a_label_are_no_markup() -> None:
    console = Console(file=io.StringIO(), width=100)
    runs = [Run("tasks=[ocr]", {"score": 0.5}), Run("ckpt_path=[/a/b]", {"score": 0.5})]
    console.print(comparison_table(runs, runs[0], "study"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(run.label in text for run in runs)


def test_tasks() -> None:
    assert task_cells([SMALL, LARGE]) == (
        ["row", "ocr", "chart"],
        [["small", "0.500", "-"], ["internvit_300m", "0.750", "0.250"]],
    )


def test_gain_needs_both_scores() -> None:
    assert gain(LARGE, SMALL) == 0.125
    assert gain(FAILED, SMALL) is None and gain(SMALL, FAILED) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0"), (999.0, "999"), (1000.0, "1.00K"), (999_999.0, "1.00M"), (2.5e21, "2.50Z")],
)
def test_large_numbers_are_short(value: float | None, text: str) -> None:
    assert compact(value) == text
