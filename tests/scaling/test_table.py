"""The study's table: what is written is what is read."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from internvl_lab.errors import InternVLLabError
from internvl_lab.scaling import Row, RowResult, read_table, write_table
from internvl_lab.scaling.table import DONE, FAILED, read_run, standard_error

METRICS = {
    "overall": {"score": 0.75, "blind": 0.25, "n": 20},
    "tasks": {"ocr": {"score": 0.5, "blind": 0.5, "n": 10}, "chart": {"score": 1.0, "blind": 0.0, "n": 10}},
}
FINISHED = {"train_s": 12.5, "seed": 5}


def test_table_round_trip(tmp_path: Path) -> None:
    numbers = {"score": 0.1 + 0.2, "blind": 1 / 3, "standard_error": 0.01, "looping": 0.1, "n": 1320, "train_s": 99.5}
    numbers |= {"final_loss": 2 / 7, "params": 10**10, "attempts": 1}
    done = RowResult("a, b=1", "x=1 'y=a b'", "key", DONE, run_dir="/runs/a", revision="rev", **numbers)
    done = replace(done, tasks={"ocr": 1 / 7, "multi_image": 0.5})
    failed = RowResult("b", "x=2", status=FAILED, error='exit status 1: "x", y', attempts=2, tasks={})
    other = RowResult("c", "x=3", status=DONE, tasks={"chart": 0.25})
    path = write_table(tmp_path / "study", [done, failed, other])
    assert read_table(path) == [done, failed, other]
    assert read_table(tmp_path / "study") == [done, failed, other]
    header = path.read_text().splitlines()[0].split(",")
    assert header[:4] == ["label", "overrides", "key", "status"]
    assert header[-3:] == ["task/ocr", "task/multi_image", "task/chart"]


def test_no_table_is_empty(tmp_path: Path) -> None:
    assert read_table(tmp_path / "study.csv") == []
    assert read_table(tmp_path) == []


def test_a_foreign_csv_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.csv").write_text("label,overrides\nx,y\n")
    with pytest.raises(InternVLLabError, match="column 'attempts' is missing"):
        read_table(tmp_path)


def test_a_table_of_before_looping_was_measured_is_read(tmp_path: Path) -> None:
    row = RowResult("a", "x=1", "k", DONE, score=0.5, n=3, looping=0.25)
    path = write_table(tmp_path, [row])
    lines = [line.split(",") for line in path.read_text().splitlines()]
    place = lines[0].index("looping")
    path.write_text("".join(",".join(cells[:place] + cells[place + 1 :]) + "\n" for cells in lines))
    assert read_table(path) == [replace(row, looping=None)]


def test_row_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "finished.json").write_text(json.dumps(FINISHED))
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    columns = "stage,step,flops,samples,tiles,tokens,train/loss,val/loss"
    (tmp_path / "metrics.csv").write_text(f"{columns}\ns,1,1e9,1,6,10,4,\ns,2,2e9,2,12,20,2,\ns,2,,,,,,0.5\n")
    pending = RowResult.pending(Row("a", ("x=1",), "k", 7, 3, 4))
    result = read_run(pending, tmp_path)
    assert (result.status, result.score, result.blind, result.n, result.train_s) == (DONE, 0.75, 0.25, 20, 12.5)
    assert (result.final_loss, result.params, result.key) == (3.0, 7, "k")
    assert (result.params_vision, result.params_language, result.seed, result.val_loss) == (3, 4, 5, 0.5)
    assert (result.tokens, result.samples, result.tiles, result.flops) == (20, 2, 12, 2e9)
    assert result.tasks == {"ocr": 0.5, "chart": 1.0}
    assert result.looping is None  # a run of an earlier version
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS | {"looping": {"overall": 0.25}}))
    assert read_run(pending, tmp_path).looping == 0.25
    assert result.standard_error == pytest.approx(math.sqrt(0.5 * 0.5 / 10) / 2)


def test_a_run_without_evaluation_has_no_score(tmp_path: Path) -> None:
    (tmp_path / "finished.json").write_text(json.dumps(FINISHED))
    result = read_run(RowResult("a", ""), tmp_path)
    assert (result.status, result.score, result.tokens, result.val_loss) == (DONE, None, None, None)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"overall": {}}', '{"overall": null, "tasks": {}}'])
def test_a_broken_report_says_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "finished.json").write_text(json.dumps(FINISHED))
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(InternVLLabError, match="holds no report of a run"):
        read_run(RowResult("a", ""), tmp_path)


def test_a_missing_report_says_so(tmp_path: Path) -> None:
    with pytest.raises(InternVLLabError, match="ended without"):
        read_run(RowResult("a", ""), tmp_path)


def test_a_line_belongs_to_one_configuration() -> None:
    row = Row("a", ("x=1",), "k")
    assert RowResult.pending(row).belongs_to(row)
    for other in (Row("b", ("x=1",), "k"), Row("a", ("x=2",), "k"), Row("a", ("x=1",), "l")):
        assert not RowResult.pending(row).belongs_to(other)


def test_standard_error_of_certain_tasks_is_zero() -> None:
    assert standard_error({"a": {"score": 1.0, "n": 5}, "b": {"score": 0.0, "n": 5}}) == 0.0
    assert standard_error({}) == 0.0
