"""Offline W&B runs read back."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from internvl_lab.errors import InternVLLabError
from internvl_lab.tracking import WandbLog, build_wandb, read_offline_runs, read_offline_wandb


def start(run_dir: Path, steps: range) -> None:
    """Log steps as one start of a run does."""
    log = WandbLog(run_dir, project="p")
    log.begin_stage("stage1", 0)
    for step in steps:
        log.log_metrics({"train/loss": 1.0 / step, "tokens": 100 * step}, step)
    log.finish()


def test_a_resumed_offline_run_reads_as_one(run_dir: Path) -> None:
    """Killed after step 4, resumed from the checkpoint of step 2: steps 3 and 4 are in both files."""
    start(run_dir, range(1, 5))
    start(run_dir, range(3, 7))
    assert len(list((run_dir / "wandb").glob("offline-run-*"))) >= 1
    columns = read_offline_wandb(run_dir)
    assert columns == {
        "stage": ["stage1"] * 6,
        "tokens": [100, 200, 300, 400, 500, 600],
        "train/loss": [1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6],
        "trainer/global_step": [1, 2, 3, 4, 5, 6],
    }


def test_no_offline_run_is_named(run_dir: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no offline W&B run"):
        read_offline_wandb(run_dir)


def test_a_broken_file_is_named(run_dir: Path) -> None:
    path = run_dir / "run-abc.wandb"
    path.write_bytes(b"not a log")
    with pytest.raises(InternVLLabError, match=r"cannot read .*run-abc\.wandb"):
        read_offline_wandb(path)


def test_a_damaged_run_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Bytes 200 to 500 hold the record that names the run: without it the row had neither name nor history."""
    for name in ("sound", "torn", "empty"):
        start(tmp_path / name, range(1, 3))
    files = {name: next((tmp_path / name).glob("wandb/offline-run-*/run-*.wandb")) for name in ("torn", "empty")}
    content = files["torn"].read_bytes()
    files["torn"].write_bytes(content[:200] + bytes(300) + content[500:])
    files["empty"].write_bytes(b"")
    assert [run.name for run in read_offline_runs(tmp_path)] == ["sound"]
    assert all(f"left out: wandb cannot read {file}" in caplog.text for file in files.values())
    with pytest.raises(InternVLLabError, match="the record that names the run is missing"):
        read_offline_runs(files["torn"])


def test_a_run_with_its_labels_config_and_summary(tmp_path: Path) -> None:
    folder = tmp_path / "experiment" / "0123456789"
    config = {"seed": 3, "rate": 1e-6, "model": {"vision": {"name": "small"}, "language": {"name": "tiny"}}}
    log = build_wandb(folder, {"mode": "offline", "tags": ["mine"]}, config)
    assert log is not None
    log.log_metrics({"train/loss": math.inf, "tokens": 10}, 1)
    log.log_summary({"val/score": 0.1 + 0.2, "words": "no number"})
    log.finish()
    (run,) = read_offline_runs(tmp_path)
    assert (run.name, run.group, run.job_type) == ("0123456789", "experiment", "train")
    assert run.tags == ("mine", "small", "tiny") and run.config == config
    assert run.summary["val/score"] == 0.1 + 0.2 and "words" not in run.summary
    assert run.history["train/loss"] == [math.inf], "wandb writes words for what JSON has no number for"


def test_several_runs_are_several(tmp_path: Path) -> None:
    for name in ("a", "b"):
        start(tmp_path / name, range(1, 3))
    assert [run.name for run in read_offline_runs(tmp_path)] == ["a", "b"]
    with pytest.raises(InternVLLabError, match="holds 2 offline W&B runs"):
        read_offline_wandb(tmp_path)
