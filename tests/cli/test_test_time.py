"""The command, end to end on the shipped model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from internvl_lab.cli import main


def run(out: Path, *overrides: str) -> int:
    common = (f"data_dir={out.parent / 'data'}", "samples_per_task=4", "max_new_tokens=8", "bootstrap_draws=20")
    return main(["test-time", "checkpoint=asset:quickstart", f"out={out}", *common, *overrides])


@pytest.mark.slow
def test_a_run_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    arguments = ("tasks=[reasoning,counting]", "samples=3", "critic=self", "select=best_of_n")
    assert run(out, *arguments) == 0
    assert "best of N" in capsys.readouterr().out
    assert {path.name for path in out.iterdir() if path.name != ".lock"} == {
        "settings.json", "samples.jsonl", "scores.jsonl", "curves.csv", "curves.json", "curves.png", "report.md",
    }  # fmt: skip
    numbers = json.loads((out / "curves.json").read_text())
    assert [numbers["tasks"][task]["n"] for task in ("all", "reasoning", "counting")] == [8, 4, 4]
    report = (out / "report.md").read_bytes()
    assert run(out, *arguments) == 0
    assert (out / "report.md").read_bytes() == report, "the same command gives the same report"
    assert run(out, *arguments, "seed=1") == 2
    assert "made with another seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [("tasks=[cooking]", "cooking"), ("checkpoint=/nowhere", "/nowhere"), ("samples=-1", "samples=-1")],
)
def test_what_cannot_run_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    assert run(tmp_path / "run", override) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
