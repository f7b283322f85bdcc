"""Bad samples are written down, and too many of them stop the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from internvl_lab.data.quarantine import MIN_JUDGED, QuarantineLog, read_entries, too_many
from internvl_lab.errors import ShardError


def planned(*keys: str) -> list[tuple[str, str]]:
    return [(key, f"{key}.tar") for key in keys]


def bad(*keys: str) -> list[tuple[str, str, str]]:
    return [(key, "corrupt_image", "why") for key in keys]


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_name_key_shard_reason_and_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = QuarantineLog(tmp_path / "new" / "q.jsonl", "stage1", 0.01, 100)
    log.record(planned("a", "b", "c"), [], 3)
    assert not log.path.exists()
    log.record(planned("d", "e", "f"), bad("e"), 4)
    entry = {"stage": "stage1", "key": "e", "shard": "e.tar", "reason": "corrupt_image", "detail": "why", "step": 4}
    assert lines(log.path) == [entry]
    assert (log.num_seen, log.num_bad, log.in_row) == (6, 1, 0)
    assert "sample e in e.tar is left out: corrupt_image (why)" in caplog.text


def test_share_is_taken_of_enough_samples() -> None:
    assert not too_many(1, 1, 0.01)
    assert not too_many(10, 500, 0.01)
    assert too_many(11, 500, 0.01)
    assert not too_many(20, 2 * MIN_JUDGED, 0.01)
    assert too_many(21, 2 * MIN_JUDGED, 0.01)
    assert too_many(1, 10**6, 0.0)


def test_too_large_a_share_is_fatal_and_names_the_last(tmp_path: Path) -> None:
    log = QuarantineLog(tmp_path / "q.jsonl", "stage1", 0.002, 100)
    log.record(planned("a", "b", "c", "d"), bad("a", "c"), 0)
    with pytest.raises(ShardError, match=r"3 of 6 .*max_bad_share=0\.002.*f in f\.tar: corrupt_image"):
        log.record(planned("e", "f"), bad("f"), 1)
    assert len(lines(log.path)) == 3


def test_in_row_is_counted_across_packs_in_order(tmp_path: Path) -> None:
    log = QuarantineLog(tmp_path / "q.jsonl", "stage1", 1.0, 4)
    log.record(planned("a", "b", "c"), bad("b", "c"), 0)
    log.record(planned("d", "e"), bad("d"), 0)
    assert log.in_row == 0
    log.record(planned("f", "g"), bad("f", "g"), 0)
    with pytest.raises(ShardError, match="4 samples in a row"):
        log.record(planned("h", "i", "j"), bad("h", "i"), 0)


def test_resume_cuts_back(tmp_path: Path) -> None:
    log = QuarantineLog(tmp_path / "q.jsonl", "stage1", 1.0, 100)
    log.cut_back(0)
    assert not log.path.exists()
    for step in range(4):
        log.record(planned(f"k{step}"), bad(f"k{step}"), step)
    with log.path.open("a") as file:
        file.write('{"key": "torn", "st')
    log.cut_back(2)
    assert [line["key"] for line in lines(log.path)] == ["k0", "k1"]
    assert [path.name for path in tmp_path.iterdir()] == ["q.jsonl"]


def test_cut_back_keeps_earlier_stages_and_drops_later_ones(tmp_path: Path) -> None:
    logs = {name: QuarantineLog(tmp_path / "q.jsonl", name, 1.0, 100) for name in ("stage1", "stage1_5", "stage2")}
    for name, log in logs.items():
        for step in range(2):
            log.record(planned(f"{name}-{step}"), bad(f"{name}-{step}"), step)
    middle = logs["stage1_5"]
    middle.cut_back(1, ["stage2"])
    assert [line["key"] for line in lines(middle.path)] == ["stage1-0", "stage1-1", "stage1_5-0"]
    middle.cut_back(0, ["stage2"])
    assert [(line["stage"], line["step"]) for line in lines(middle.path)] == [("stage1", 0), ("stage1", 1)]


def test_what_the_settings_leave_out_is_no_fault(tmp_path: Path) -> None:
    log = QuarantineLog(tmp_path / "q.jsonl", "stage1", 0.0, 1)
    log.leave_out([("a.tar", "k1", "over_max_tokens", "9 > 8")], step=3)
    assert read_entries(log.path) == [
        {"stage": "stage1", "key": "k1", "shard": "a.tar", "reason": "over_max_tokens", "detail": "9 > 8", "step": 3}
    ]
    assert (log.num_seen, log.num_bad) == (0, 0)
