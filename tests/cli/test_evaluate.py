"""The command: words, the list of tasks, errors in one line."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from internvl_lab.cli import main
from internvl_lab.config import MiniworldConfig
from internvl_lab.evaluation import suites
from internvl_lab.evaluation.benchmark import load_benchmarks


def test_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["evaluate", "--list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in load_benchmarks())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tasks=[mmstar]"], "checkpoint= is missing"),
        (["checkpoint=asset:quickstart", "tasks=[mmstar]", "colour=red"], "unknown key 'colour'"),
        (["checkpoint=asset:quickstart", "tasks=[mmsta]"], "unknown task 'mmsta'"),
        (["checkpoint=asset:quickstart", "tasks=[mmstar]"], "MMStar.tsv is missing: download MMStar.tsv"),
        (["checkpoint=asset:nothing", "tasks=[mmstar]"], "nothing"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *words, f"data={tmp_path}", f"out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "MiniworldConfig", partial(MiniworldConfig, num_val=44))
    words = ["checkpoint=asset:quickstart", "tasks=[text_only]", "samples_per_task=2", f"data={tmp_path}"]
    assert main(["evaluate", *words, f"out={tmp_path / 'out'}"]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"predictions", "report.md", "metrics.json", "tables"}
