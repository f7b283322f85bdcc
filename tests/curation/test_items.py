from __future__ import annotations

import json

import pytest

from internvl_lab.curation.inputs import find_input, plan_chunks
from internvl_lab.curation.items import loose_turns, read_images, read_items, to_record
from internvl_lab.curation.verdicts import CurationRecord
from internvl_lab.errors import SampleError


def items(path, root=None):
    return [item for chunk in plan_chunks(find_input(path, root)) for item in read_items(chunk)]


def write(tmp_path, *records):
    path = tmp_path / "one.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n")
    return path


def test_keys_are_source_and_line_and_blank_lines_count(tmp_path):
    path = tmp_path / "a.b.jsonl"
    path.write_bytes(b'{"x":1}\n\n{"x":2}\r\n{"x":3}')
    assert [(item.key, item.payload) for item in items(path)] == [
        ("a.b:1", b'{"x":1}'),
        ("a.b:3", b'{"x":2}'),
        ("a.b:4", b'{"x":3}'),
    ]


def test_a_record_keeps_its_texts_and_raw_object(data):
    record = to_record(items(data)[0])
    assert isinstance(record, CurationRecord)
    assert record.turns == (("human", "<image>\nWhich colour?"), ("gpt", "red"))
    assert (record.source, record.images, record.has_media, record.raw["id"]) == ("mine", ("a.jpg",), True, 1)


def test_samples_of_shards(shards):
    found = items(shards)
    assert [item.key for item in found] == ["shards:s-0", "shards:s-1", "shards:s-2", "shards:s-3"]
    record = to_record(found[2])
    assert isinstance(record, CurationRecord)
    assert record.images == ("s-2.0.jpg", "s-2.1.jpg")
    assert [data[:2] for data in read_images(found[2])] == [b"\xff\xd8"] * 2
    assert found[2].sample_key == "s-2"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ([1], "bad_json"),
        ({"x": 1}, "bad_json"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": " "}]}, "empty"),
        ({"image": 3, "conversations": []}, "bad_json"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "\ud800"}]}, "bad_json"),
        ({"conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "b"}]}, "image_count"),
    ],
)
def test_faulty_records_are_errors_and_not_raised(tmp_path, raw, reason):
    (item,) = items(write(tmp_path, raw))
    error = to_record(item)
    assert isinstance(error, SampleError)
    assert error.reason == reason


def test_what_can_be_read_of_a_faulty_conversation(tmp_path):
    turns = [{"from": "human", "value": "a"}, {"from": "bot", "value": "b"}, "c", {"from": "gpt", "value": None}]
    (item,) = items(write(tmp_path, {"conversations": turns}))
    assert loose_turns(item) == (("human", "a"), ("bot", "b"))


def test_a_video_of_one_path_is_media_without_images(tmp_path):
    turns = [{"from": "human", "value": "<video>\na"}, {"from": "gpt", "value": "b"}]
    (item,) = items(write(tmp_path, {"video": "clip.mp4", "conversations": turns}))
    record = to_record(item)
    assert isinstance(record, CurationRecord)
    assert (record.images, record.has_media) == ((), True)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("../secret.jpg", "path_outside_root"), ("/etc/passwd", "path_outside_root"), ("s3://b/a.jpg", "remote_path"),
     ("no.jpg", "missing_file"), ("a\0b", "missing_file")],
)  # fmt: skip
def test_images_outside_the_root_are_not_read(tmp_path, name, reason):
    (item,) = items(write(tmp_path, {"image": name, "conversations": []}))
    (error,) = read_images(item)
    assert isinstance(error, SampleError)
    assert error.reason == reason
