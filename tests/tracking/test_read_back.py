"""Runs read back as columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from internvl_lab.tracking import CsvLog, last_values, read_metrics


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
