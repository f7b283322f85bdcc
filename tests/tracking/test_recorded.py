"""Runs as their folders record them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from internvl_lab.errors import InternVLLabError
from internvl_lab.tracking.recorded import RecordedRun, read_run_folder, report_summary, run_labels

METRICS = {
    "overall": {"score": 0.75, "blind": 0.25, "n": 40},
    "tasks": {"ocr": {"score": 0.5, "blind": 0.1, "n": 20}, "chart": {"score": 1.0, "blind": 0.4, "n": 20}},
    "looping": {"overall": 0.125},
    "train_s": 61.5,
    "seed": 7,
}
FLAT = {
    "val/score": 0.75,
    "val/blind": 0.25,
    "val/n": 40,
    "val/looping": 0.125,
    "val/ocr/score": 0.5,
    "val/ocr/n": 20,
    "val/chart/score": 1.0,
    "val/chart/n": 20,
    "train_s": 61.5,
    "seed": 7,
}
MODEL = {"vision": {"name": "small"}, "language": {"name": "tiny"}}


def test_the_report_is_flattened_to_the_keys_of_wandb() -> None:
    assert report_summary(METRICS) == FLAT
    assert report_summary({}) == {}


def test_tasks_are_found_again() -> None:
    run = RecordedRun("r", "", {}, summary={**FLAT, "val/old/score": 0.5})
    assert run.tasks == {"chart": {"score": 1.0, "n": 20}, "ocr": {"score": 0.5, "n": 20}, "old": {"score": 0.5}}


def test_a_run_folder(tmp_path: Path) -> None:
    folder = tmp_path / "experiment" / "abc"
    folder.mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"metrics\.csv"):
        read_run_folder(folder)
    (folder / "metrics.csv").write_text("stage,step,tokens\ns,1,10\n")
    assert read_run_folder(folder).summary == {}
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": MODEL, "logger": {"wandb": {"tags": ["mine"]}}}))
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    run = read_run_folder(folder)
    assert run.history == {"stage": ["s"], "step": [1], "tokens": [10]} and run.summary == FLAT
    assert (run.name, run.group, run.job_type, run.tags) == ("abc", "experiment", "train", ("mine", "small", "tiny"))
    (folder / "metrics.json").write_text('{"overall": 3')
    with pytest.raises(InternVLLabError, match="is damaged"):
        read_run_folder(folder)


@pytest.mark.parametrize(
    ("settings", "config", "expected"),
    [
        ({}, {"model": MODEL}, ("abc", "experiment", "train")),
        ({}, {"model": MODEL, "probe": {"run": "x"}}, ("abc", "experiment", "probe")),
        ({}, {"experiment": "study"}, ("abc", "experiment", "report")),
        ({"name": "n", "group": "g", "job_type": "j"}, {"model": MODEL}, ("n", "g", "j")),
    ],
)
def test_labels(settings: dict[str, str], config: dict[str, object], expected: tuple[str, str, str]) -> None:
    labels = run_labels(Path("outputs/experiment/abc"), settings, config)
    assert (labels["name"], labels["group"], labels["job_type"]) == expected
