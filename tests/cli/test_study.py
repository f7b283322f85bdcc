"""`study`: rows with their cost, and the refusals; the slow tests run rows, side by side and through a kill -9."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from internvl_lab.cli import main
from internvl_lab.cli.study import cost_table
from internvl_lab.config.compose import compose
from internvl_lab.run_study import study_rows

TINY = (
    "stage=stage1",
    "debug=tiny",
    "evaluation.tasks=[counting]",
    "logger=csv",
    "init_from={vision: null, projector: null, language: null}",
)


def dry(*overrides: str) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(cost_table(study_rows(compose(list(overrides)), overrides), overrides))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_dry_run_lists_rows_with_parameters_packs_and_flops() -> None:
    text = dry("sweep=vision_encoder", "scale=mini")
    assert "study of 2 rows" in text and "internvit_300m" in text and "internvit_6b" in text
    assert text.count("1,400") == 2, "150 + 150 + 1100 packs"
    assert "1,815,296" in text and "2,347,584" in text
    assert "total" in text


def test_a_dry_run_counts_the_full_scale_without_weights() -> None:
    text = dry("experiment=scaling_llm")
    assert "78,408,318,336" in text and "study of 3 rows" in text


def test_isoflops_rows_show_equal_cost() -> None:
    lines = [line for line in dry("sweep=isoflops", "scale=mini").splitlines() if "flops=1e+13" in line]
    assert len(lines) == 4
    assert all(9.8 < float(line.split()[-2]) < 10.2 for line in lines)


def test_the_command_prints_the_table_and_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["study", "sweep=loss", "--dry-run", "scale=mini"]) == 0, "options stand anywhere"
    assert "study of 3 rows" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seed=1"], "there is no study to run: name a sweep"),
        (["sweep=loss", "loss=token"], "loss is set by the sweep loss"),
        (["sweep=packing", "packing=default"], "packing is set by the sweep packing"),
        (["sweep=loss", "--jobs", "0"], "--jobs=0"),
        (["sweep=nope"], "unknown choice 'sweep/nope'"),
        (["sweep=isoflops", "sweep.budget_flops=[1.0]", "--dry-run"], "below one step of each stage"),
    ],
)
def test_what_cannot_run_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def study(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start `python -m internvl_lab study` inside a folder."""
    command = [sys.executable, "-m", "internvl_lab", "study", *TINY, *arguments]
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, cwd=folder, env=path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finished(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=500)
    return process.returncode, output.decode()


def table(folder: Path) -> list[dict[str, str]]:
    (path,) = folder.glob("outputs/quickstart/study-*/study.csv")
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.slow
def test_two_trials_in_parallel_one_failing(tmp_path: Path) -> None:
    axes = "{trial: {sound: {seed: 1}, lost: {seed: 2, ckpt_path: /nowhere}}}"
    process = study(tmp_path, f"+sweep.axes={axes}", "--jobs", "2")
    status, output = finished(process)
    assert status == 2, output
    rows = table(tmp_path)
    assert [(row["status"], row["attempts"]) for row in rows] == [("done", "1"), ("failed", "2")]
    assert float(rows[0]["final_loss"]) > 0
    assert "checkpoint /nowhere does not exist" in rows[1]["error"]
    assert "rows failed" in output.splitlines()[-1]


@pytest.mark.slow
def test_a_study_killed_in_the_middle_of_a_row_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    rows = ("sweep=loss", "sweep.axes.loss=[token,square]", "max_steps_per_stage=6", "stage.checkpoint_every=1")
    folders = tmp_path / "killed", tmp_path / "whole"
    for folder in folders:
        folder.mkdir()
    victim = study(folders[0], *rows)
    try:
        wait_for(folders[0], "outputs/quickstart/*/stages/stage1/checkpoints/step_00000002.ckpt")
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    for folder in folders:
        status, output = finished(study(folder, *rows))
        assert status == 0, output
    killed, whole = table(folders[0]), table(folders[1])
    same = ("label", "key", "status", "final_loss", "score", "task/counting")
    assert [[row[name] for name in same] for row in killed] == [[row[name] for name in same] for row in whole]


def wait_for(folder: Path, pattern: str, timeout_s: float = 300) -> None:
    end = time.monotonic() + timeout_s
    while not list(folder.glob(pattern)):
        assert time.monotonic() < end, f"{pattern} did not appear"
        time.sleep(0.05)
