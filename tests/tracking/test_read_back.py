"""Runs read back as columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from internvl_lab.errors import InternVLLabError
from internvl_lab.tracking import CsvLog, WandbLog, last_values, read_metrics, read_offline_wandb


def test_csv_columns_are_typed(run_dir: Path) -> None:
    log = CsvLog(run_dir, "stage1")
    log.log_metrics({"loss": 1.0, "tokens": 10}, 1)
    log.log_metrics({"val": 0.25}, 1)
    assert read_metrics(run_dir) == {
        "stage": ["stage1", "stage1"],
        "step": [1, 1],
        "loss": [1.0, None],
        "tokens": [10, None],
        "val": [None, 0.25],
    }
    assert isinstance(read_metrics(run_dir)["tokens"][0], int)


def test_a_folder_without_metrics_is_named(run_dir: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"metrics\.csv does not exist"):
        read_metrics(run_dir)


def test_last_values_are_the_newest_of_each_key(run_dir: Path) -> None:
    assert last_values(run_dir, ["tokens"]) == {"tokens": 0.0}
    log = CsvLog(run_dir)
    for stage, step, tokens in (("s1", 1, 10), ("s1", 2, 30), ("s2", 1, 70)):
        log.begin_stage(stage)
        log.log_metrics({"tokens": tokens}, step)
    log.log_metrics({"val": 1.0}, 1)
    assert last_values(run_dir, ["tokens", "flops"]) == {"tokens": 70, "flops": 0.0}
    assert last_values(run_dir, ["tokens"], stage="s1") == {"tokens": 30}


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
