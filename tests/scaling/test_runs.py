"""Runs gathered from folders, tables and W&B: the same numbers whatever held them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from internvl_lab.config import ModelConfig
from internvl_lab.errors import ConfigError
from internvl_lab.models import build_on_meta, count_parameters
from internvl_lab.scaling import RowResult, Run, read_runs, write_table
from internvl_lab.scaling.curves import read_curve
from internvl_lab.scaling.runs import make_labels, num_devices, read_table_runs, result_runs
from internvl_lab.tracking import CsvLog, RecordedRun, build_wandb, report_summary

REPORT = {
    "overall": {"score": 0.75, "blind": 0.25, "n": 40},
    "tasks": {"ocr": {"score": 0.1 + 0.2, "blind": 0.1, "n": 20}, "chart": {"score": 1.0, "blind": 0.4, "n": 20}},
    "looping": {"overall": 0.125},
    "train_s": 61.5,
}


def settings(seed: int, **more: Any) -> dict[str, Any]:
    """Give a resolved configuration, as far as a comparison looks at it."""
    vision = {"name": "internvit_300m", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = {"vision": {**vision, "intermediate_size": 128}, "language": {"name": "qwen2_5_0_5b"}}
    return {"seed": seed, "model": model, "trainer": {"devices": 2, "num_nodes": 1}, "logger": {"wandb": {}}, **more}


def make_run(folder: Path, seed: int = 0) -> Path:
    """Leave what a run leaves, in plain files and in W&B."""
    config, report = settings(seed), {**REPORT, "seed": seed}
    wandb = build_wandb(folder, {}, config)
    assert wandb is not None
    for log in (CsvLog(folder), wandb):
        log.begin_stage("stage1")
        for step in range(1, 31):
            counts = {"tokens": 2037.0 * step, "samples": 3.0 * step, "tiles": 7.0 * step, "flops": 1e10 * step / 3}
            log.log_metrics({"train/loss": 1.0 + seed + 1 / step, "perf/step_s": 0.1 * step, **counts}, step)
        log.log_metrics({"val/loss": 1.1 + seed}, 30)
    wandb.log_summary(report_summary(report))
    wandb.finish()
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.json").write_text(json.dumps(report))
    return folder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("outputs") / "quickstart" / "abc")


def test_folder_and_offline_wandb_give_the_same_to_the_digit(run_folder: Path) -> None:
    (plain,) = read_runs([str(run_folder)])
    (offline,) = read_runs([str(run_folder / "wandb")])
    assert repr(plain.values) == repr(offline.values), "W&B writes 1.0 as 1; a table must not show it"
    assert repr(plain.tasks) == repr(offline.tasks)
    assert (plain.label, plain.group, plain.devices) == (offline.label, offline.group, offline.devices)
    for name in ("train/loss", "perf/step_s", "val/loss"):
        assert plain.history[name] == offline.history[name]
    curves = read_curve(plain.history), read_curve(offline.history)
    assert curves[0] is not None and curves[1] is not None
    for name in ("tokens", "flops", "hours"):
        assert curves[0].axes[name].tolist() == curves[1].axes[name].tolist()
    assert plain.values["val_loss"] == 1.1 and plain.values["tokens"] == 2037 * 30
    assert plain.values["final_loss"] == pytest.approx(1 + sum(1 / k for k in range(11, 31)) / 20)
    assert plain.values["standard_error"] == pytest.approx((0.3 * 0.7 / 20) ** 0.5 / 2)
    assert plain.hours == 61.5 * 2 / 3600
    assert plain.tasks == {"chart": 1.0, "ocr": 0.1 + 0.2}


def test_parameters_are_counted_from_the_configuration(run_folder: Path) -> None:
    (run,) = read_runs([str(run_folder)])
    counts = count_parameters(build_on_meta(ModelConfig()))
    assert run.values["params_language"] == counts["language"]
    assert run.values["params"] > run.values["params_language"] + run.values["params_vision"] > 0


def test_a_study_s_table(tmp_path: Path, run_folder: Path) -> None:
    done = RowResult("a", "x=1", "9135e08712", "done", score=0.5, params=7, revision="rev", tasks={"ocr": 0.25})
    with_folder = replace(done, label="b", run_dir=str(run_folder), score=0.625, tasks={})
    failed = RowResult("c", "x=3", status="failed", error="no memory")
    results = [done, with_folder, failed]
    path = write_table(tmp_path, results)
    for source in (tmp_path, path):
        first, second, third = read_runs([str(source)])
        assert first.values == {"score": 0.5, "params": 7.0, "attempts": 0.0} and first.tasks == {"ocr": 0.25}
        assert first.texts == {"overrides": "x=1", "key": "9135e08712", "revision": "rev"} and first.devices == 1
        assert second.values["score"] == 0.625 and second.values["tokens"] == 2037 * 30 and second.devices == 2
        assert second.tasks == {"chart": 1.0, "ocr": 0.1 + 0.2} and second.history["train/loss"]
        assert (third.status, third.error) == ("failed", "no memory")
    assert [run.values for run in result_runs(results)] == [run.values for run in read_runs([str(path)])]


def test_any_table_with_labels(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("label,status,val_loss,devices,note\na,,1.5,8,text\nb,done,nan,,\n")
    first, second = read_table_runs(path)
    assert first.values == {"val_loss": 1.5} and (first.status, first.devices) == ("done", 8)
    assert second.values["val_loss"] != second.values["val_loss"] and second.devices is None
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="column 'label' is missing"):
        read_table_runs(path)
    with pytest.raises(ConfigError, match="does not exist"):
        read_runs([str(tmp_path / "none.csv")])


def test_sources_are_read_together_and_filtered_by_group(tmp_path: Path, run_folder: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("label,val_loss\nabc,1.5\n")
    runs = read_runs([str(path), str(run_folder)])
    assert [run.label for run in runs] == ["abc", "abc (2)"], "labels are unique"
    assert [run.label for run in read_runs([str(path), str(run_folder)], group="quickstart")] == ["abc"]
    with pytest.raises(ConfigError, match=r"no runs in .* of group 'other'"):
        read_runs([str(run_folder)], group="other")


def test_nothing_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no run: expected study\.csv, a folder with metrics\.csv"):
        read_runs([str(tmp_path)])
    with pytest.raises(ConfigError, match="must be wandb:ENTITY/PROJECT"):
        read_runs(["wandb:project"])


def recorded(name: str, **config: Any) -> RecordedRun:
    return RecordedRun(name, "", {}, config)


def test_labels_say_what_differs() -> None:
    one, two = (recorded(name, seed=seed, paths=name, rate=1e4) for name, seed in (("a", 1), ("b", 2)))
    assert make_labels([one, two]) == ["seed=1", "seed=2"]
    assert make_labels([one, replace(two, config={**two.config, "new": 1})]) == ["seed=1", "seed=2"]
    vits = [
        recorded(n, model={"vision": {"name": n, "width": k}}, init_from={"vision": f"asset:{n}"}, max_steps=7 * k)
        for k, n in enumerate(("small", "large"), 1)
    ]
    assert make_labels(vits) == ["small, max_steps=7", "large, max_steps=14"], "a name stands for what goes with it"
    assert make_labels([recorded("a", rate=10000.0), recorded("b", rate=10000)]) == ["a", "b"], "one and the same"
    assert make_labels([recorded("a", b=0.1, c={"d": [1]}), recorded("b", b=0.2, c={"d": [2]})]) == [
        "b=0.1, d=[1]",
        "b=0.2, d=[2]",
    ]
    many = [recorded(n, **{f"k{i}": n for i in range(9)}) for n in ("x", "y")]
    assert make_labels(many) == ["x", "y"] and make_labels([]) == []
    seeds = [replace(run, config={**run.config, "seed": seed}) for seed, run in enumerate(many)]
    assert make_labels(seeds) == ["seed=0", "seed=1"], "of many differences, names and seed are shown"
    twins = [recorded("p", seed=1), recorded("q", seed=2), recorded("r", seed=1)]
    assert make_labels(twins) == ["p", "q", "r"], "two runs of one label would be worse than their names"


@pytest.mark.parametrize(
    ("trainer", "number"),
    [
        ({"devices": 8, "num_nodes": 4}, 32),
        ({"devices": [0, 3]}, 2),
        ({"devices": "auto"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_devices(trainer: dict[str, Any] | None, number: int | None) -> None:
    assert num_devices(trainer) == number
    assert Run("a", {"train_s": 3600.0}, devices=number).hours == number
