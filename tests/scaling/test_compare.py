"""The comparison of a study's rows."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from internvl_lab.errors import ConfigError
from internvl_lab.scaling import RowResult, comparison_table, write_comparison, write_table
from internvl_lab.scaling.compare import gain


@pytest.fixture
def results(tmp_path: Path) -> list[RowResult]:
    """Give two finished rows with loss curves and a failed one."""
    made = []
    for number, label in enumerate(("small", "large")):
        run = tmp_path / label
        run.mkdir()
        rows = "".join(f"s,{k},{100 * k},{5 / k + number}\n" for k in range(1, 30))
        (run / "metrics.csv").write_text("stage,step,tokens,train/loss\n" + rows)
        scores = {"ocr": 0.5 + number / 4, "chart": 0.25}
        numbers = {
            "score": 0.5 + number / 8,
            "blind": 0.125,
            "standard_error": 0.01,
            "train_s": 60.0,
            "final_loss": 0.3,
        }
        done = RowResult(
            label, f"size={number}", "k", "done", run_dir=str(run), params=1_700_000, revision="rev", **numbers
        )
        made.append(replace(done, tasks=scores))
    return [*made, RowResult("huge", "size=9", status="failed", error="exit status 1: no memory", attempts=2)]


def quiet() -> Console:
    return Console(file=io.StringIO(), width=160)


def test_metrics_json(tmp_path: Path, results: list[RowResult]) -> None:
    paths = (
        write_comparison(results, tmp_path / "study", console=quiet()) if (tmp_path / "study").mkdir() is None else {}
    )
    metrics = json.loads(paths["metrics"].read_text())
    assert metrics["baseline"] == "small"
    assert [(r["label"], r["status"], r["score"], r["gain_over_baseline"]) for r in metrics["rows"]] == [
        ("small", "done", 0.5, 0.0),
        ("large", "done", 0.625, 0.125),
        ("huge", "failed", None, None),
    ]
    assert metrics["rows"][1]["tasks"] == {"ocr": 0.75, "chart": 0.25}


def test_report(tmp_path: Path, results: list[RowResult]) -> None:
    write_table(tmp_path, results)
    paths = write_comparison(results, tmp_path, title="6B against 300M", baseline="large", console=quiet())
    text = paths["report"].read_text()
    assert text.startswith("# 6B against 300M\n")
    assert "| small | 1.70M | 0.500 ± 0.010 | -0.125 | 0.125 | 0.3000 | 60 |" in text
    assert "| large | 1.70M | 0.625 ± 0.010 | - | 0.125 |" in text
    assert "| huge | - | failed | - |" in text and "exit status 1: no memory" in text
    assert "| large | 0.750 | 0.250 |" in text and "minus that of large" in text
    assert "![comparison](comparison.png)" in text
    assert {path.name for path in paths.values()} == {"report.md", "metrics.json", "study.csv", "comparison.png"}
    assert all(path.exists() for path in paths.values()) and not list(tmp_path.glob(".*partial"))


def test_terminal(tmp_path: Path, results: list[RowResult]) -> None:
    console = quiet()
    paths = write_comparison(results, tmp_path, title="6B against 300M", console=console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "6B against 300M" in text and "+0.125" in text and "failed" in text
    narrow = Console(file=io.StringIO(), width=80)
    narrow.print(comparison_table([replace(results[0], label="internvit_300m")], results[0], "t"))
    assert "internvit_300m" in narrow.file.getvalue()  # type: ignore[attr-defined]
    assert f"comparison  {paths['comparison']}" in text


def test_loops_are_shown_where_there_are_any(tmp_path: Path, results: list[RowResult]) -> None:
    looping = [replace(results[0], looping=0.0), replace(results[1], looping=0.125), results[2]]
    text = write_comparison(looping, tmp_path, console=quiet())["report"].read_text()
    assert "| train s | loops |" in text and "share of answers that repeat" in text
    assert "| 60 | 0.000 |" in text and "| 60 | 0.125 |" in text
    assert "| loops |" not in write_comparison(results, tmp_path, console=quiet())["report"].read_text()


def test_picture_shows_every_row(tmp_path: Path, results: list[RowResult]) -> None:
    paths = write_comparison(results, tmp_path, console=quiet())
    pixels = np.asarray(Image.open(paths["comparison"]).convert("RGB")).reshape(-1, 3)
    for colour in ((31, 119, 180), (255, 127, 14)):
        assert (pixels == colour).all(axis=1).sum() > 3000
    assert (pixels == (44, 160, 44)).all(axis=1).sum() == 0, "the failed row has no bar"


def test_without_loss_curves(tmp_path: Path) -> None:
    bare = [RowResult("a", "", status="done", score=0.5, run_dir=str(tmp_path / "gone"), tasks={"ocr": 0.5})]
    tall = Image.open(write_comparison(bare, tmp_path, console=quiet())["comparison"]).height
    assert tall < 700


def test_nothing_done_has_no_picture(tmp_path: Path, results: list[RowResult]) -> None:
    paths = write_comparison(results[2:], tmp_path, console=quiet())
    assert "comparison" not in paths and "![" not in paths["report"].read_text()


@pytest.mark.parametrize("baseline", ["unknown", None])
def test_unknown_baseline_or_no_rows(tmp_path: Path, results: list[RowResult], baseline: str | None) -> None:
    with pytest.raises(ConfigError, match="is no row of the study"):
        write_comparison(results if baseline else [], tmp_path, baseline=baseline, console=quiet())


def test_gain_needs_both_scores(results: list[RowResult]) -> None:
    assert gain(results[1], results[0]) == 0.125
    assert gain(results[2], results[0]) is None and gain(results[0], results[2]) is None
