from __future__ import annotations

import json

import pytest

from internvl_lab.curation.inputs import find_input, plan_chunks
from internvl_lab.curation.items import read_images, read_items
from internvl_lab.curation.outputs import appears_whole
from internvl_lab.curation.pipeline import curate


def test_kept_lines_are_the_bytes_that_came_in(data, tmp_path, lines):
    curate(data, tmp_path / "out", progress=False)
    content = data.read_bytes().splitlines()
    assert (tmp_path / "out" / "kept" / "mine.jsonl").read_bytes().splitlines() == [content[0], content[2]]
    meta = json.loads((tmp_path / "out" / "meta.json").read_bytes())
    assert meta["mine"]["length"] == 2
    assert meta["mine"]["root"] == str(data.parent)
    assert find_input(tmp_path / "out" / "meta.json").sources[0].path.name == "mine.jsonl"


def test_rejected_records_come_with_every_rule(data, tmp_path, lines):
    curate(data, tmp_path / "out", progress=False)
    rejected = {line["key"]: line for line in lines(tmp_path / "out" / "rejected.jsonl")}
    rules = {key: [verdict["rule"] for verdict in line["verdicts"]] for key, line in rejected.items()}
    assert rules["mine:2"][:2] == ["longest_repeat", "longest_loop"]
    assert rules["mine:4"] == ["exact_duplicate"]
    assert rules["mine:5"] == ["blank_image"]
    assert rules["mine:6"] == ["unreadable_image"]
    assert rules["mine:7"] == ["zero_run"]
    assert rules["mine:8"] == ["near_duplicate_image"]
    assert rules["mine:9"] == ["malformed_record"]
    assert rejected["mine:4"]["verdicts"][0]["detail"] == "like mine:3"
    assert rejected["mine:5"]["record"]["image"] == "blank.jpg"
    assert rejected["mine:5"]["root"] == str(data.parent)
    assert (rejected["mine:9"]["record"], rejected["mine:9"]["line"]) == (None, "{broken")


def test_every_record_has_a_decision(data, tmp_path, lines):
    curate(data, tmp_path / "out", progress=False)
    decisions = lines(tmp_path / "out" / "decisions.jsonl")
    assert [line["key"] for line in decisions] == [f"mine:{number}" for number in range(1, 10)]
    assert [line["key"] for line in decisions if line["keep"]] == ["mine:1", "mine:3"]


def test_shards_become_shards(shards, tmp_path, lines):
    curate(shards, tmp_path / "out", progress=False)
    kept = [item for chunk in plan_chunks(find_input(tmp_path / "out" / "kept")) for item in read_items(chunk)]
    before = [item for chunk in plan_chunks(find_input(shards)) for item in read_items(chunk)]
    assert [item.sample_key for item in kept] == ["s-0", "s-2"]
    assert [(item.raw, read_images(item)) for item in kept] == [
        (item.raw, read_images(item)) for item in (before[0], before[2])
    ]
    rejected = lines(tmp_path / "out" / "rejected.jsonl")
    assert [line["key"] for line in rejected] == ["shards:s-1", "shards:s-3"]
    assert rejected[1]["shard"].endswith("shard-000001.tar")
    assert rejected[1]["images"] == ["s-3.0.jpg"]


def test_half_a_character_is_kept_as_it_stood_and_reported(tmp_path, lines):
    line = '{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "\\ud800"}]}'
    (tmp_path / "x.jsonl").write_text(line + "\n")
    curate(tmp_path / "x.jsonl", tmp_path / "out", progress=False)
    (rejected,) = lines(tmp_path / "out" / "rejected.jsonl")
    assert rejected["record"] == json.loads(line)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file"
    with pytest.raises(ValueError, match="stop"), appears_whole(path) as file:
        file.write(b"half")
        raise ValueError("stop")
    assert not path.exists()
    with appears_whole(path) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole"
