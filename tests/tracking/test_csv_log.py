"""metrics.csv: appended, cut back, exact."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.utilities import rank_zero_only

from internvl_lab.tracking import CsvLog, read_metrics


def write(run_dir: Path, rows: list[tuple[str, int, dict[str, float]]]) -> CsvLog:
    """Log rows of (stage, step, metrics)."""
    log = CsvLog(run_dir)
    for stage, step, metrics in rows:
        log.begin_stage(stage, 100)
        log.log_metrics(metrics, step)
    return log


def test_columns_are_stage_step_and_sorted_keys(run_dir: Path) -> None:
    write(run_dir, [("stage1", 1, {"b": 2.0, "a": 1})])
    assert (run_dir / "metrics.csv").read_text() == "stage,step,a,b\nstage1,1,1,2.0\n"


def test_a_new_key_becomes_a_column_and_old_rows_stay(run_dir: Path) -> None:
    write(run_dir, [("s", 1, {"b": 1}), ("s", 2, {"a": 5, "b": 2}), ("s", 3, {"b": 3})])
    assert (run_dir / "metrics.csv").read_text() == "stage,step,a,b\ns,1,,1\ns,2,5,2\ns,3,,3\n"


def test_every_row_is_on_disk_at_once(run_dir: Path) -> None:
    log = CsvLog(run_dir, "s")
    for step in range(3):
        log.log_metrics({"a": step}, step)
        assert len((run_dir / "metrics.csv").read_text().splitlines()) == step + 2


@given(st.floats(allow_nan=False) | st.integers(-(2**60), 2**60))
def test_numbers_come_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    folder = tmp_path_factory.mktemp("csv")
    write(folder, [("s", 1, {"a": value})])
    (read,) = read_metrics(folder)["a"]
    assert type(read) is type(value)
    assert struct.pack("d", read) == struct.pack("d", value)


def test_tensors_and_non_numbers_are_written(run_dir: Path) -> None:
    write(run_dir, [("s", 1, {"t": torch.tensor(0.5), "nan": math.nan, "text": 'a, "b"\nc'})])
    row = read_metrics(run_dir)
    assert row["t"] == [0.5]
    assert math.isnan(row["nan"][0])


def test_a_restart_continues_the_file(run_dir: Path) -> None:
    write(run_dir, [("s", 1, {"a": 1}), ("s", 2, {"a": 2})])
    write(run_dir, [("s", 3, {"a": 3})])
    assert read_metrics(run_dir)["a"] == [1, 2, 3]


def test_half_a_line_does_not_spoil_the_next(run_dir: Path) -> None:
    write(run_dir, [("s", 1, {"a": 1, "b": 1})])
    with (run_dir / "metrics.csv").open("a") as file:
        file.write("s,2,0.3")
    write(run_dir, [("s", 2, {"a": 2, "b": 2})])
    assert (run_dir / "metrics.csv").read_text() == "stage,step,a,b\ns,1,1,1\ns,2,2,2\n"


def test_cut_back_leaves_the_file_of_an_uninterrupted_run(run_dir: Path) -> None:
    rows = [("s1", 1, {"a": 0.1}), ("s1", 2, {"a": 0.2}), ("s2", 1, {"a": 0.3}), ("s2", 2, {"a": 0.4, "late": 1})]
    write(run_dir, rows[:3])
    expected = (run_dir / "metrics.csv").read_bytes()
    log = write(run_dir, rows[3:])
    log.cut_back("s2", 1)
    assert (run_dir / "metrics.csv").read_bytes() == expected
    log.log_metrics({"a": 0.4, "late": 1}, 2)
    assert read_metrics(run_dir)["late"] == [None, None, None, 1]


def test_cut_back_to_nothing_starts_anew(run_dir: Path) -> None:
    log = write(run_dir, [("s", 1, {"a": 1, "gone": 2})])
    log.cut_back("s", 0)
    assert not (run_dir / "metrics.csv").exists()
    log.log_metrics({"a": 5}, 1)
    assert (run_dir / "metrics.csv").read_text() == "stage,step,a\ns,1,5\n"


def test_logging_goes_on_after_finalize(run_dir: Path) -> None:
    log = write(run_dir, [("s", 1, {"a": 1})])
    log.finalize("success")
    log.log_metrics({"a": 2}, 2)
    assert read_metrics(run_dir)["a"] == [1, 2]


def test_other_ranks_write_nothing(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    CsvLog(run_dir).log_metrics({"a": 1}, 1)
    assert not (run_dir / "metrics.csv").exists()


def test_lightning_is_told_where_the_file_lies(run_dir: Path) -> None:
    log = CsvLog(run_dir)
    assert (log.name, log.version, log.save_dir) == ("csv", "", str(run_dir))
    log.log_hyperparams({"a": 1})
    assert not list(run_dir.iterdir())
