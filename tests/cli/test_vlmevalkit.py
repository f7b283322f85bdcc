"""The command that puts a checkpoint into a checkout of VLMEvalKit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from internvl_lab.cli import main


def test_a_checkpoint_becomes_a_model(tmp_path: Path) -> None:
    (tmp_path / "vlmeval" / "vlm").mkdir(parents=True)
    (tmp_path / "vlmeval" / "config.py").write_text("supported_VLM = {}\n")
    words = ["checkpoint=asset:quickstart", "max_tiles=2", "--into", str(tmp_path), "--name", "mine"]
    assert main(["vlmevalkit", *words]) == 0
    listed = json.loads((tmp_path / "vlmeval" / "vlm" / "internvl_lab.json").read_text())
    assert listed == {"mine": {"max_tiles": 2, "checkpoint": "asset:quickstart"}}


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in ((["checkpoint=asset:quickstart"], "no checkout"), (["checkpoint=nowhere"], "nowhere")):
        assert main(["vlmevalkit", *words, "--into", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
