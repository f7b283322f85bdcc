"""The comparison of a study's rows, and of any runs."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from internvl_lab.errors import ConfigError
from internvl_lab.scaling import RowResult, Run, push, read_runs, write_comparison, write_runs, write_table
from internvl_lab.tracking import WandbLog, read_offline_runs

Make = Callable[..., list[Run]]


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
    metrics = json.loads(write_comparison(results, tmp_path / "study", console=quiet())["metrics"].read_text())
    assert metrics["baseline"] == "small"
    assert [(r["label"], r["status"], r["score"], r["gain_over_baseline"]) for r in metrics["rows"]] == [
        ("small", "done", 0.5, 0.0),
        ("large", "done", 0.625, 0.125),
        ("huge", "failed", None, None),
    ]
    assert metrics["rows"][1]["tasks"] == {"ocr": 0.75, "chart": 0.25}
    assert metrics["rows"][1]["tokens"] == 2900 and metrics["rows"][1]["revision"] == "rev"


def test_report(tmp_path: Path, results: list[RowResult]) -> None:
    write_table(tmp_path, results)
    paths = write_comparison(results, tmp_path, title="6B against 300M", baseline="large", console=quiet())
    text = paths["report"].read_text()
    assert text.startswith("# 6B against 300M\n")
    assert "| small | 1.70M | 0.500 ± 0.010 | -0.125 | 0.125 | 0.3000 | 2.90K |" in text
    assert "| large | 1.70M | 0.625 ± 0.010 | - | 0.125 |" in text
    assert "| huge | - | failed | - |" in text and "exit status 1: no memory" in text
    assert "| large | 0.750 | 0.250 |" in text and "minus that of large" in text
    assert "- **small** `size=0` done, revision rev: `" in text
    assert "None: no run has a value of 'val_loss'" in text, "why there is no law"
    pictures = {"comparison.png", "loss.png", "pareto.png"}
    assert pictures == set(re.findall(r"!\[\w+\]\((.+)\)", text))
    written = {path.name for path in paths.values()}
    assert written == pictures | {"report.md", "metrics.json", "study.csv", "comparison.csv", "comparison.html"}
    assert all(path.exists() for path in paths.values()) and not list(tmp_path.glob(".*partial"))


def test_terminal(tmp_path: Path, results: list[RowResult]) -> None:
    console = quiet()
    paths = write_comparison(results, tmp_path, title="6B against 300M", console=console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "6B against 300M" in text and "+0.125" in text and "failed" in text
    assert f"comparison  {paths['comparison']}" in text


def test_the_page_holds_everything_and_needs_nothing(tmp_path: Path, results: list[RowResult]) -> None:
    page = write_comparison(results, tmp_path, title="<6B>", console=quiet())["page"].read_text()
    assert page.count("data:image/png;base64,") == 3 and "&lt;6B&gt;" in page
    assert "http" not in page and "exit status 1: no memory" in page and "0.625 ± 0.010" in page
    assert re.findall(r"(?:src|href)=\"(?!data:)", page) == []


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


def test_numbers_come_back_to_the_digit(tmp_path: Path, results: list[RowResult]) -> None:
    """comparison.csv is a table that compare and fit read again."""
    exact = [replace(results[0], score=0.1 + 0.2), results[1], results[2]]
    path = write_comparison(exact, tmp_path, console=quiet())["numbers"]
    with path.open(newline="") as stream:
        assert next(csv.DictReader(stream))["score"] == repr(0.1 + 0.2)
    again = read_runs([str(path)])
    second = write_runs(again, tmp_path / "again", console=quiet())["numbers"]
    assert second.read_text() == path.read_text()
    assert again[0].values["score"] == 0.1 + 0.2 and again[0].tasks == {"ocr": 0.5, "chart": 0.25}
    assert again[2].status == "failed" and again[2].error


def test_nothing_done_has_no_picture(tmp_path: Path, results: list[RowResult]) -> None:
    paths = write_comparison(results[2:], tmp_path, console=quiet())
    assert "comparison" not in paths and "![" not in paths["report"].read_text()


@pytest.mark.parametrize("baseline", ["unknown", None])
def test_unknown_baseline_or_no_rows(tmp_path: Path, results: list[RowResult], baseline: str | None) -> None:
    with pytest.raises(ConfigError, match="is no row of the study"):
        write_comparison(results if baseline else [], tmp_path, baseline=baseline, console=quiet())


def test_a_grid_of_runs_gets_its_law(tmp_path: Path, make_runs: Make) -> None:
    paths = write_runs(make_runs((1, 4, 4), 1e-3), tmp_path, console=quiet())
    assert Image.open(paths["scaling"]).width > 1000
    text = paths["report"].read_text()
    assert "L = E + B·Nl^-b + C·D^-c for val_loss, from 16 runs" in text and "| parameter |" in text
    assert "misses the 1 held-out largest ones" in paths["page"].read_text()


def test_a_comparison_is_pushed_as_a_run_of_its_own(tmp_path: Path, results: list[RowResult]) -> None:
    """Offline; `wandb sync` or mode online sends the same to the service, which these tests never reach."""
    paths = write_comparison(results, tmp_path / "out", console=quiet())
    runs = read_runs([str(paths["numbers"])])
    push(runs, paths, WandbLog(tmp_path / "out", job_type="compare"))
    (logged,) = read_offline_runs(tmp_path / "out")
    assert logged.job_type == "compare" and logged.history == {}
    media = [path for path in (tmp_path / "out" / "wandb").glob("offline-run-*/files/media/**/*") if path.is_file()]
    assert sorted(path.suffix for path in media) == [".json", ".png", ".png", ".png"]
    (table,) = (json.loads(path.read_text()) for path in media if path.suffix == ".json")
    assert table["columns"][:2] == ["row", "params"] and table["columns"][-2:] == ["task/ocr", "task/chart"]
    assert table["data"][1][0] == "large" and table["data"][1][-2] == 0.75
