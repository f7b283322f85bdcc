"""`curate review` is a command of two words, and `curate` obeys what it decided."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from internvl_lab.cli import main


def test_two_words_name_the_review(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["curate", "review", "--in", str(tmp_path)]) == 2
    assert "error:" in capsys.readouterr().err


def test_a_decision_by_hand_wins(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    turns = [{"from": "human", "value": "Go on."}, {"from": "gpt", "value": "and so on again, " * 60}]
    data.write_text(json.dumps({"id": "a", "conversations": turns}) + "\n")
    assert main(["curate", "--in", str(data), "--out", str(tmp_path / "one"), "--workers", "1"]) == 0
    (entry,) = map(json.loads, (tmp_path / "one" / "rejected.jsonl").read_text().splitlines())
    reviews = tmp_path / "reviews.jsonl"
    decision = {"key": entry["key"], "decision": "keep", "by": "ann", "at": "2026-11-25T00:00:00+00:00", "rules": []}
    reviews.write_text(json.dumps(decision) + "\n")
    again = ["curate", "--in", str(data), "--out", str(tmp_path / "two"), "--workers", "1", "--reviews", str(reviews)]
    assert main(again) == 0
    assert (tmp_path / "two" / "rejected.jsonl").read_text() == ""
