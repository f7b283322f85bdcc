"""Answers survive kills: half lines and half chunks go, other settings set old answers aside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from internvl_lab.evaluation.answer_log import AnswerLog, settings_hash

SETTINGS = {"weights": "abc", "tiles": (1, 2), "revision": "r1"}


def line(number: int, **more: Any) -> dict[str, Any]:
    return {"id": str(number), "prediction": "ä", **more}


def test_lines_are_appended_and_read_back(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path, "t", SETTINGS, 2)
    log.append([line(0), line(1)])
    log.append([line(2), line(3)])
    assert [row["id"] for row in AnswerLog(tmp_path, "t", SETTINGS, 2).lines] == ["0", "1", "2", "3"]
    assert log.lines == AnswerLog(tmp_path, "t", SETTINGS, 2).lines


def test_any_text_can_be_logged(tmp_path: Path) -> None:
    """Line breaks of Unicode, which `splitlines` knows and JSON does not escape, and half a surrogate pair."""
    texts = ["a\u2028b", "a\x85b", "\ud83d", "\x1c\r"]
    log = AnswerLog(tmp_path, "t", SETTINGS, 1)
    log.append([line(0, question=text) for text in texts])
    assert [row["question"] for row in log.lines] == texts
    assert AnswerLog(tmp_path, "t", SETTINGS, 1).lines == log.lines


def test_a_line_of_other_settings_ends_what_is_read(tmp_path: Path) -> None:
    """Another process may have written it before the folder's settings were set aside."""
    log = AnswerLog(tmp_path, "t", SETTINGS, 1)
    log.append([line(0, settings=log.stamp), line(1, settings="another"), line(2, settings=log.stamp)])
    assert [row["id"] for row in AnswerLog(tmp_path, "t", SETTINGS, 1).lines] == ["0"]


def test_a_half_line_and_a_half_chunk_are_dropped(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path, "t", SETTINGS, 2)
    log.append([line(0), line(1)])
    whole = log.path.read_bytes()
    for rest in (b'{"id": "2", "predic', b'{"id": "2"}\n', b'{"id": "2"}\n{"id"', b"\xff\xfe\n"):
        log.path.write_bytes(whole + rest)
        assert len(AnswerLog(tmp_path, "t", SETTINGS, 2).lines) == 2
        assert log.path.read_bytes() == whole


def test_a_broken_line_in_the_middle_drops_what_follows(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path, "t", SETTINGS, 1)
    log.append([line(0), line(1)])
    log.path.write_bytes(log.path.read_bytes().replace(b'{"id": "0"', b'{"id": "0'))
    assert AnswerLog(tmp_path, "t", SETTINGS, 1).lines == []


def test_the_last_chunk_may_be_short(tmp_path: Path) -> None:
    AnswerLog(tmp_path, "t", SETTINGS, 2).append([line(0), line(1), line(2, last=True)])
    assert len(AnswerLog(tmp_path, "t", SETTINGS, 2).lines) == 3


def test_other_settings_set_the_old_answers_aside(tmp_path: Path) -> None:
    AnswerLog(tmp_path, "t", SETTINGS, 1).append([line(0)])
    old = settings_hash(SETTINGS)
    new = AnswerLog(tmp_path, "t", {**SETTINGS, "weights": "xyz"}, 1)
    assert new.lines == [] and new.settings["weights"] == "xyz"
    assert json.loads((tmp_path / f"t.{old}.jsonl").read_text())["id"] == "0"
    assert json.loads((tmp_path / f"t.{old}.settings.json").read_text())["weights"] == "abc"


def test_another_revision_keeps_the_answers(tmp_path: Path) -> None:
    AnswerLog(tmp_path, "t", SETTINGS, 1).append([line(0)])
    again = AnswerLog(tmp_path, "t", {**SETTINGS, "revision": "r2"}, 1)
    assert len(again.lines) == 1 and again.settings["revision"] == "r1"


def test_unreadable_settings_start_anew(tmp_path: Path) -> None:
    (tmp_path / "t.settings.json").write_text("{")
    assert AnswerLog(tmp_path, "t", SETTINGS, 1).settings["weights"] == "abc"
