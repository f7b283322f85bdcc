import csv
import json
from unittest.mock import Mock

import pytest

from internvl_lab.config import RunConfig
from internvl_lab.config.compose import compose, compose_raw, plain, typed_config
from internvl_lab.errors import ConfigError, InternVLLabError
from internvl_lab.prepare import run_hash
from internvl_lab.run import Invocation, run
from internvl_lab.run_study import NO_SWEEP, _log_to_wandb, _run_folder, _with_run, gpu_slots, row_overrides, study_hash
from internvl_lab.scaling import Row, RowResult, expand
from internvl_lab.scaling.rows import format_value

SCRATCH = "init_from={vision: null, projector: null, language: null}"
STUDY = ("experiment=scaling_6b_vit", "scale=mini", "debug=tiny", SCRATCH)


def test_a_row_is_the_run_its_own_command_line_would_make():
    row = _with_run(Row("6b", ("model/vision=mini/internvit_6b",)), STUDY)
    alone = compose_raw([*STUDY, NO_SWEEP, "model/vision=mini/internvit_6b"])
    assert row.key == run_hash(typed_config(alone), plain(alone))
    other = _with_run(Row("300m", ("model/vision=mini/internvit_300m",)), STUDY)
    assert other.key != row.key
    assert other.params < row.params


def test_data_filtering_trains_on_four_shares_without_and_with_the_filter():
    rows = expand(compose(["experiment=data_filtering"]).sweep)
    configs = [compose(["experiment=data_filtering", NO_SWEEP, *row.overrides]) for row in rows]
    shares = [0.0, 0.005, 0.02, 0.08]
    found = [(config.data.miniworld.filtered, config.data.miniworld.loop_share) for config in configs]
    assert found == [(on, share) for on in (False, True) for share in shares]
    assert len({(repr(config.data.miniworld), *config.stages) for config in configs}) == 1


@pytest.mark.parametrize(
    ("visible", "jobs", "dealt"),
    [
        ("0,1,2,3", 2, ["0,1", "2,3"]),
        ("4,5,6", 2, ["4", "5"]),
        ("0,1", 1, [None]),
        ("0", 2, [None, None]),
        ("", 2, [None, None]),
    ],
)
def test_gpus_are_dealt_out_to_rows_side_by_side(visible, jobs, dealt, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [slot.get("CUDA_VISIBLE_DEVICES") for slot in gpu_slots(jobs)] == dealt


def test_two_sweeps_over_one_experiment_have_a_folder_each():
    names = set()
    for overrides in (["sweep=loss"], ["sweep=language"], ["sweep=loss", "sweep.axes.loss=[token,square]"]):
        raw = compose_raw(overrides)
        names.add(study_hash(typed_config(raw), plain(raw)))
    assert len(names) == 3
    raw = compose_raw(["sweep=loss", "sweep.baseline=square"])
    assert study_hash(typed_config(raw), plain(raw)) in names


def test_rows_take_over_the_command_line_but_for_the_sweep():
    given = ["sweep=loss", "+sweep.axes={a: [1]}", "seed=1", "experiment=quickstart"]
    assert row_overrides(given) == ["seed=1", "experiment=quickstart"]


def execute(tmp_path, *overrides):
    folders = (f"paths.output_dir={tmp_path}/outputs", f"paths.data_dir={tmp_path}/data")
    given = (*overrides, *folders)
    raw = compose_raw(given)
    return run(typed_config(raw), Invocation(plain(raw), given))


@pytest.mark.slow
def test_the_vit_ablation_runs_both_rows_and_compares_them(tmp_path):
    execute(tmp_path, *STUDY)
    latest = tmp_path / "outputs" / "latest"
    rows = json.loads((latest / "metrics.json").read_text())["rows"]
    assert [row["label"] for row in rows] == ["internvit_300m", "internvit_6b"]
    assert all(row["status"] == "done" for row in rows)
    assert (latest / "comparison.png").stat().st_size > 0
    with (latest / "study.csv").open() as file:
        before = list(csv.DictReader(file))
    execute(tmp_path, *STUDY)  # everything is done: nothing runs again
    with (latest / "study.csv").open() as file:
        assert list(csv.DictReader(file)) == before


@pytest.mark.slow
def test_a_failing_row_leaves_the_other_s_result_and_is_an_error(tmp_path):
    axes = "{trial: {sound: {seed: 1}, lost: {seed: 2, ckpt_path: /nowhere}}}"
    with pytest.raises(InternVLLabError, match="rows failed"):
        execute(tmp_path, *STUDY, "stage=stage1", f"+sweep.axes={axes}")
    rows = json.loads((tmp_path / "outputs" / "latest" / "metrics.json").read_text())["rows"]
    assert [row["status"] for row in rows] == ["done", "failed", "done", "failed"]
    assert all(row["error"] for row in rows if row["status"] == "failed")


def test_a_row_lies_where_its_own_command_line_puts_it(tmp_path, monkeypatch):
    """Experiments as rows: each writes below its own name, and that is where the study looks."""
    found = []

    def look(rows, base, study_dir, run_dir, jobs):
        found.extend((run_dir(row), _run_folder(row, base)) for row in rows)
        return [RowResult.pending(row) for row in rows]

    monkeypatch.setattr("internvl_lab.run_study._run_rows", look)
    with pytest.raises(InternVLLabError, match="rows failed"):
        execute(tmp_path, "+sweep.axes={experiment: [quickstart, reasoning]}", "scale=mini", "debug=tiny")
    assert [here for here, _ in found] == [there for _, there in found]
    assert [here.parent.name for here, _ in found] == ["quickstart", "reasoning"]


def test_the_study_goes_to_wandb_as_compare_would_push_it(tmp_path, monkeypatch):
    log = Mock()
    monkeypatch.setattr("internvl_lab.run_study.build_wandb", lambda *given: log)
    rows = [RowResult("a", "", status="done", score=0.5), RowResult("b", "", status="failed", error="no memory")]
    _log_to_wandb(RunConfig(), tmp_path, rows, {"loss": tmp_path / "loss.png", "table": tmp_path / "study.csv"})
    key, columns, cells = log.log_rows.call_args.args
    assert (key, columns[0]) == ("comparison/runs", "row")
    assert [row[:2] for row in cells] == [["a", "0.500"], ["b", "failed"]]
    log.log_images.assert_called_once_with("comparison/loss", [tmp_path / "loss.png"])
    log.finish.assert_called_once_with()


def test_rows_that_are_one_run_are_refused_before_any_runs(tmp_path):
    with pytest.raises(ConfigError, match="the rows 'num_workers=0' and 'num_workers=1' are the same run"):
        execute(tmp_path, "+sweep.axes={data.num_workers: [0, 1]}", "scale=mini", "debug=tiny")


@pytest.mark.slow
def test_parts_are_made_once_and_rows_start_from_them(tmp_path):
    tiny = ("debug=tiny", "evaluation.enabled=false", SCRATCH)
    parts = {
        "language": ("experiment=pretrain_language", *tiny),
        "vision": ("experiment=pretrain_vision", "model/language=mini/qwen2_5_0_5b", *tiny),
    }
    given = (
        "experiment=scaling_grid",
        "debug=tiny",
        "~sweep.parts",
        f"+sweep.parts={format_value(parts)}",
        "~sweep.axes",
    )
    axes = "{model/vision:[mini/internvit_tiny],model/language:[mini/qwen2_5_tiny],seed:[1,2]}"
    execute(tmp_path, *given, f"+sweep.axes={axes}")
    latest = tmp_path / "outputs" / "latest"
    rows = list(csv.DictReader((latest / "study.csv").open()))
    made = list(csv.DictReader((latest / "parts" / "study.csv").open()))
    assert [row["status"] for row in rows + made] == ["done"] * 5
    assert [row["seed"] for row in rows] == ["1", "2"]
    folders = {row["label"]: row["run_dir"] for row in made}
    assert list(folders) == ["language qwen2_5_tiny", "language qwen2_5_0_5b", "vision internvit_tiny"]
    beside = f"init_from.language={folders['language qwen2_5_0_5b']}"
    assert made[-1]["overrides"].endswith(beside), "a part starts from the parts before it"
    for part in ("language qwen2_5_tiny", "vision internvit_tiny"):
        source = f"init_from.{part.split()[0]}={folders[part]}"
        assert all(source in row["overrides"] for row in rows)
    assert all(float(row["val_loss"]) > 0 and int(row["tokens"]) > 0 for row in rows)


def test_parts_that_no_axis_chooses_are_refused():
    with pytest.raises(ConfigError, match=r"sweep\.parts\.language needs an axis model/language"):
        compose(["experiment=scaling_grid", "~sweep.axes", "+sweep.axes={seed:[1,2]}"])
