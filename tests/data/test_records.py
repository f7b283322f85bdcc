"""The authors' JSONL rules, one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from internvl_lab.data.records import parse_record, read_jsonl
from internvl_lab.errors import SampleError


def turns(question: str, answer: str = "yes") -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def reason(raw: Any, num_images: int | None = None) -> str:
    with pytest.raises(SampleError) as caught:
        parse_record(raw, "k7", num_images)
    assert caught.value.key == "k7"
    return caught.value.reason


def test_text_alone() -> None:
    record = parse_record({"id": 3, "task": "t", "conversations": turns("why?")}, "k")
    assert record.images == () and not record.is_video
    assert [(t.role, t.text) for t in record.turns] == [("human", "why?"), ("gpt", "yes")]
    assert record.metadata == {"id": 3, "task": "t"}


def test_single_image_gets_its_placeholder_in_the_first_human_turn() -> None:
    system = {"from": "system", "value": "be brief"}
    record = parse_record({"image": "a.jpg", "conversations": [system, *turns("why?")]}, "k")
    assert [t.text for t in record.turns] == ["be brief", "<image>\nwhy?", "yes"]
    assert record.images == ("a.jpg",)
    kept = parse_record({"image": ["a.jpg"], "conversations": turns("why <image>?")}, "k")
    assert kept.turns[0].text == "why <image>?"


def test_images_and_placeholders_must_agree() -> None:
    ok = parse_record({"image": ["a", "b"], "conversations": turns("<image><image>")}, "k")
    assert ok.images == ("a", "b")
    assert reason({"image": ["a", "b"], "conversations": turns("<image>")}) == "image_count"
    assert reason({"image": ["a", "b"], "conversations": turns("none")}) == "image_count"
    assert reason({"image": "a", "conversations": turns("<image><image>")}) == "image_count"
    assert reason({"conversations": turns("<image>")}) == "image_count"


def test_placeholder_in_an_answer_is_text() -> None:
    record = parse_record({"image": "a", "conversations": turns("<image>", "I see <image>")}, "k")
    assert record.turns[1].text == "I see <image>"


def test_images_present_in_the_shard_decide() -> None:
    assert reason({"image": ["a", "b"], "conversations": turns("<image><image>")}, 1) == "missing_member"
    unnamed = parse_record({"conversations": turns("<image><image>")}, "k", 2)
    assert unnamed.images == ("k.0", "k.1")


@pytest.mark.parametrize("question", ["<video>\nwhat?", "<video>what?", "what?"])
def test_video_becomes_frame_lines(question: str) -> None:
    record = parse_record({"video": "v.mp4", "conversations": turns(question)}, "k", 2)
    assert record.is_video and len(record.images) == 2
    assert record.turns[0].text == "Frame-1: <image>\nFrame-2: <image>\nwhat?"


def test_video_faults() -> None:
    raw = {"video": "v.mp4", "conversations": turns("<video>\nwhat?")}
    assert reason(raw) == "video_frames"
    assert reason(raw, 0) == "missing_member"
    assert reason({**raw, "image": "a.jpg"}, 3) == "mixed_media"
    assert reason({**raw, "conversations": turns("<video><video>")}, 3) == "image_count"
    assert reason({**raw, "conversations": turns("<video> <image>")}, 3) == "image_count"
    listed = parse_record({"video": ["a", "b"], "conversations": turns("what?")}, "k")
    assert listed.is_video and listed.images == ("a", "b")


@pytest.mark.parametrize(
    "raw",
    [
        [],
        {},
        {"conversations": "hello"},
        {"conversations": ["hello"]},
        {"conversations": [{"from": "robot", "value": "hi"}]},
        {"conversations": [{"from": "human"}]},
        {"conversations": [*turns("a"), {"from": "system", "value": "late"}]},
        {"conversations": turns("a"), "image": 3},
        {"conversations": turns("a"), "image": ["a", 3]},
    ],
)
def test_broken_structure_is_bad_json(raw: Any) -> None:
    assert reason(raw) == "bad_json"


def test_nobody_asks_or_answers() -> None:
    assert reason({"conversations": []}) == "empty"
    assert reason({"conversations": turns("a", " ")}) == "empty"
    assert reason({"conversations": turns("a")[1:]}) == "empty"


def test_read_jsonl_yields_errors_in_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{"a": \n[1]\n\xff\xfe\n{"a": 2}')
    items = list(read_jsonl(path))
    assert [number for number, _ in items] == [1, 3, 4, 5, 6]
    assert items[0][1] == {"a": 1} and items[-1][1] == {"a": 2}
    for number, error in items[1:4]:
        assert isinstance(error, SampleError) and error.reason == "bad_json"
        assert error.key == f"a.jsonl:{number}"
