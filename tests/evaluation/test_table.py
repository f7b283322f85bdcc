"""The table at the end of a run."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from internvl_lab.evaluation.results import EvaluationResult, Prediction, TaskResult
from internvl_lab.evaluation.table import score_cells, show


def result(blind: bool | None) -> EvaluationResult:
    answer = Prediction("1", "?", "a", "a", True, None if blind is None else "b", blind)
    return EvaluationResult((TaskResult("grounding", "iou_at_50", (answer,)),))


def printed(blind: bool | None, paths: dict[str, Path], width: int = 60) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(result(blind), paths, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_rows_and_mean() -> None:
    text = printed(False, {})
    assert [line.split("│")[1:-1] for line in text.splitlines() if "grounding" in line or "mean" in line] == [
        [" grounding ", " IoU ≥ 0.5  ", " 1.000 ", " 0.000 ", " +1.000 ", " 1 "],
        [" mean      ", " over tasks ", " 1.000 ", " 0.000 ", " +1.000 ", " 1 "],
    ]


def test_paths_are_aligned_and_never_broken() -> None:
    long = Path("/" + "folder/" * 20 + "report.md")
    lines = printed(True, {"report": long, "contact sheet": Path("[x]/sheet.png")}).splitlines()
    assert f"report         {long}" in lines
    assert "contact sheet  [x]/sheet.png" in lines


def test_no_blind_run_is_a_dash() -> None:
    assert score_cells(result(None)) == ("1.000", "-", "-", "1")


def test_writes_to_standard_output_by_default(capsys) -> None:  # type: ignore[no-untyped-def]
    show(result(True), {"report": Path("report.md")})
    assert "report  report.md" in capsys.readouterr().out
