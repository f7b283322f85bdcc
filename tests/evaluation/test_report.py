"""The report: the shapes that others read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from internvl_lab.evaluation.report import markdown_table, write_report
from internvl_lab.evaluation.results import EvaluationResult, Example, Prediction, TaskResult


@pytest.fixture
def result() -> EvaluationResult:
    """Give two tasks, one with a sample that could not be read."""
    good = Prediction("1", "<image>\nIs it | red?", "yes", "yes", True, "no", False)
    bad = Prediction("2", "<image>\nIs it?", "yes", "no", False, "no", False)
    broken = Prediction("3", "<image>\nIs it?", "yes", "", False, error="sample 3: corrupt_image (cut)")
    tasks = (TaskResult("existence", "exact_match", (good, bad, broken)), TaskResult("grounding", "iou_at_50", (good,)))
    picture = Image.new("RGB", (20, 20), "red")
    return EvaluationResult(
        tasks, {"weights": "abc", "tiling": {"max_tiles": 6}}, (Example("existence", good, (picture,)),)
    )


def write_losses(run_dir: Path) -> None:
    (run_dir / "metrics.csv").write_text("stage,step,train/loss\nstage1,1,3\nstage1,2,2\n")


def test_metrics_json_has_exactly_this_shape(run_dir: Path, result: EvaluationResult) -> None:
    paths = write_report(run_dir, result, train_s=61.23, seed=7)
    assert json.loads(paths["metrics"].read_text()) == {
        "overall": {"score": 0.75, "blind": 0.0, "n": 3},
        "tasks": {
            "existence": {"score": 0.5, "blind": 0.0, "n": 2},
            "grounding": {"score": 1.0, "blind": 0.0, "n": 1},
        },
        "looping": {"overall": 0.0, "existence": 0.0, "grounding": 0.0},
        "train_s": 61.2,
        "seed": 7,
    }


def test_all_files_are_written_and_embedded(run_dir: Path, result: EvaluationResult) -> None:
    write_losses(run_dir)
    (run_dir / "predictions").mkdir()
    paths = write_report(run_dir, result, train_s=1, seed=7, title="quickstart")
    assert {p.name for p in paths.values()} == {
        "report.md", "metrics.json", "contact_sheet.png", "loss_curves.png", "predictions",
    }  # fmt: skip
    text = paths["report"].read_text(encoding="utf-8")
    embedded = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert sorted(embedded) == ["contact_sheet.png", "loss_curves.png"]
    for name in embedded:
        Image.open(run_dir / name).verify()
    assert not list(run_dir.glob(".*"))


def test_the_report_says_what_produced_the_scores(run_dir: Path, result: EvaluationResult) -> None:
    settings = {"checkpoint": "outputs/x", "versions": {"torch": "2.13.0"}}
    text = write_report(run_dir, result, train_s=1, seed=7, title="quick", settings=settings)["report"].read_text()
    assert text.startswith("# quick\n")
    for line in (
        "- seed: `7`",
        "- weights: `abc`",
        "- checkpoint: `outputs/x`",
        '{"torch": "2.13.0"}',
        '"max_tiles": 6',
    ):
        assert line in text
    assert "| **mean over tasks** |  | 0.750 | 0.000 | +0.750 | 3 |" in text
    assert "| grounding | IoU ≥ 0.5 | 1.000 | 0.000 | +1.000 | 1 |" in text
    assert "1 questions could not be asked" in text and "corrupt_image" in text
    assert "Is it \\| red?" in text and "&lt;image" not in text


def test_the_clock_is_read_last(run_dir: Path, result: EvaluationResult) -> None:
    seen: list[bool] = []

    def clock() -> float:
        seen.append((run_dir / "contact_sheet.png").exists())
        return 5.0

    assert json.loads(write_report(run_dir, result, train_s=clock, seed=0)["metrics"].read_text())["train_s"] == 5.0
    assert seen == [True]


def test_without_training_or_examples_there_are_no_pictures(run_dir: Path, result: EvaluationResult) -> None:
    paths = write_report(run_dir, EvaluationResult(result.tasks), train_s=1, seed=0)
    assert set(paths) == {"report", "metrics"}
    assert "![" not in paths["report"].read_text()


def test_metrics_appear_only_when_all_else_is_written(
    run_dir: Path, result: EvaluationResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr("internvl_lab.evaluation.report.draw_contact_sheet", fail)
    with pytest.raises(RuntimeError, match="no font"):
        write_report(run_dir, result, train_s=1, seed=0)
    assert not (run_dir / "metrics.json").exists()


def test_markdown_table_escapes_and_cuts() -> None:
    table = markdown_table(("a", "b"), [("x|y\nz", "<ref>" + "w" * 200)])
    head, rule, row = table.splitlines()
    assert (head, rule) == ("| a | b |", "| --- | --- |")
    assert row.startswith("| x\\|y z | &lt;ref>www") and len(row) < 150
