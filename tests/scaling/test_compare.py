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


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[RowResult]:
    """Give two finished rows with loss curves and a failed one."""
    made = []
    for number, label in enumerate(("small", "large")):
        run = tmp_path_factory.mktemp(label)
        rows = "".join(f"s,{k},{100 * k},{5 / k + number}\n" for k in range(1, 30))
        (run / "metrics.csv").write_text("stage,step,tokens,train/loss\n" + rows)
        numbers = {
            "score": 0.5 + number / 8,
            "blind": 0.125,
            "standard_error": 0.01,
            "train_s": 60.0,
            "final_loss": 0.1 + 0.2,
        }
        done = RowResult(
            label, f"size={number}", "k", "done", run_dir=str(run), params=1_700_000, revision="rev", **numbers
        )
        made.append(replace(done, tasks={"ocr": 0.5 + number / 4, "chart": 0.25}))
    return [*made, RowResult("huge", "size=9", status="failed", error="exit status 1: no memory", attempts=2)]


def quiet() -> Console:
    return Console(file=io.StringIO(), width=160)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, results: list[RowResult]) -> tuple[dict[str, Path], str]:
    """Write one comparison; give its paths and what the terminal showed."""
    folder, console = tmp_path_factory.mktemp("study"), quiet()
    write_table(folder, results)
    paths = write_comparison(results, folder, title="<6B> against 300M", baseline="large", console=console)
    return paths, console.file.getvalue()  # type: ignore[attr-defined]


Written = tuple[dict[str, Path], str]


def test_metrics_json(written: Written) -> None:
    metrics = json.loads(written[0]["metrics"].read_text())
    assert metrics["baseline"] == "large"
    assert [(r["label"], r["status"], r["score"], r["gain_over_baseline"]) for r in metrics["rows"]] == [
        ("small", "done", 0.5, -0.125),
        ("large", "done", 0.625, 0.0),
        ("huge", "failed", None, None),
    ]
    assert metrics["rows"][1]["tasks"] == {"ocr": 0.75, "chart": 0.25}
    assert metrics["rows"][1]["tokens"] == 2900 and metrics["rows"][1]["revision"] == "rev"


def test_report(written: Written) -> None:
    paths, _ = written
    text = paths["report"].read_text()
    assert text.startswith("# <6B> against 300M\n")
    assert "| small | 1.70M | 0.500 ± 0.010 | -0.125 | 0.125 | 0.3000 | 2.90K |" in text
    assert "| large | 1.70M | 0.625 ± 0.010 | - | 0.125 |" in text
    assert "| huge | - | failed | - |" in text and "exit status 1: no memory" in text
    assert "| large | 0.750 | 0.250 |" in text and "minus that of large" in text
    assert "- **small** `size=0` done, revision rev: `" in text
    assert "None: no run has a value of 'val_loss'" in text, "why there is no law"
    pictures = {"comparison.png", "loss.png", "pareto.png"}
    assert pictures == set(re.findall(r"!\[\w+\]\((.+)\)", text))
    names = {path.name for path in paths.values()}
    assert names == pictures | {"report.md", "metrics.json", "study.csv", "comparison.csv", "comparison.html"}
    assert all(path.exists() for path in paths.values()) and not list(paths["report"].parent.glob(".*partial"))


def test_terminal(written: Written) -> None:
    paths, text = written
    assert "<6B> against 300M" in text and "-0.125" in text and "failed" in text
    assert f"comparison  {paths['comparison']}" in text


def test_the_page_holds_everything_and_needs_nothing(written: Written) -> None:
    page = written[0]["page"].read_text()
    assert page.count("data:image/png;base64,") == 3 and "&lt;6B&gt;" in page
    assert "http" not in page and "exit status 1: no memory" in page and "0.625 ± 0.010" in page
    assert re.findall(r"(?:src|href)=\"(?!data:)", page) == []


def test_picture_shows_every_row(written: Written) -> None:
    pixels = np.asarray(Image.open(written[0]["comparison"]).convert("RGB")).reshape(-1, 3)
    for colour in ((31, 119, 180), (255, 127, 14)):
        assert (pixels == colour).all(axis=1).sum() > 3000
    assert (pixels == (44, 160, 44)).all(axis=1).sum() == 0, "the failed row has no bar"


def test_numbers_come_back_to_the_digit(tmp_path: Path, written: Written) -> None:
    """comparison.csv is a table that compare and fit read again."""
    path = written[0]["numbers"]
    with path.open(newline="") as stream:
        assert next(csv.DictReader(stream))["final_loss"] == repr(0.1 + 0.2)
    again = read_runs([str(path)])
    assert again[0].values["final_loss"] == 0.1 + 0.2 and again[0].tasks == {"ocr": 0.5, "chart": 0.25}
    assert again[2].status == "failed" and again[2].error
    second = write_runs(again, tmp_path, console=quiet())["numbers"]
    assert second.read_text() == path.read_text()


def test_loops_are_shown_where_there_are_any(tmp_path: Path, results: list[RowResult]) -> None:
    looping = [replace(results[0], looping=0.0), replace(results[1], looping=0.125), results[2]]
    text = write_comparison(looping, tmp_path, console=quiet())["report"].read_text()
    assert "| train s | loops |" in text and "share of answers that repeat" in text
    assert "| 60 | 0.000 |" in text and "| 60 | 0.125 |" in text
    assert "| loops |" not in write_comparison(results, tmp_path, console=quiet())["report"].read_text()


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


def test_a_comparison_is_pushed_as_a_run_of_its_own(tmp_path: Path, written: Written) -> None:
    """Offline; `wandb sync` or mode online sends the same to the service, which these tests never reach."""
    paths, _ = written
    runs = read_runs([str(paths["numbers"])])
    push(runs, paths, WandbLog(tmp_path / "out", job_type="compare"))
    (logged,) = read_offline_runs(tmp_path / "out")
    assert logged.job_type == "compare" and logged.history == {}
    media = [path for path in (tmp_path / "out" / "wandb").glob("offline-run-*/files/media/**/*") if path.is_file()]
    assert sorted(path.suffix for path in media) == [".json", ".png", ".png", ".png"]
    (table,) = (json.loads(path.read_text()) for path in media if path.suffix == ".json")
    assert table["columns"][:2] == ["row", "params"] and table["columns"][-2:] == ["task/ocr", "task/chart"]
    assert table["data"][1][0] == "large" and table["data"][1][-2] == 0.75
