from __future__ import annotations

import json
import os

import pytest

from internvl_lab.curation import inputs
from internvl_lab.curation.inputs import find_input, plan_chunks
from internvl_lab.errors import ConfigError, ShardError


def test_a_jsonl_file_is_one_source(data, tmp_path):
    given = find_input(data)
    (source,) = given.sources
    assert (given.kind, source.name, source.root) == ("jsonl", "mine", data.parent)
    assert find_input(data, tmp_path).sources[0].root == tmp_path


def test_a_meta_json_names_its_sources(data, tmp_path):
    entry = {"root": str(data.parent), "annotation": str(data), "repeat_time": 2}
    meta = tmp_path / "meta.json"
    meta.write_text(json.dumps({"first": entry, "second": entry}))
    given = find_input(meta)
    assert [source.name for source in given.sources] == ["first", "second"]
    assert given.sources[1].meta["repeat_time"] == 2


def test_folders_of_shards(shards):
    assert [source.name for source in find_input(shards).sources] == ["shards"]
    assert [source.name for source in find_input(shards.parent).sources] == ["shards"]
    assert len(list(plan_chunks(find_input(shards)))) == 2


def test_a_missing_shard_stops_the_run(shards):
    (shards / "shard-000000.tar").unlink()
    with pytest.raises(ShardError, match="lacks 1"):
        list(plan_chunks(find_input(shards)))


@pytest.mark.parametrize("size", [1, 50, 300, 10**6])
def test_chunks_cover_a_file_behind_whole_lines(data, monkeypatch, size):
    monkeypatch.setattr(inputs, "CHUNK_BYTES", size)
    content = data.read_bytes()
    chunks = list(plan_chunks(find_input(data)))
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    assert b"".join(content[chunk.start : chunk.stop] for chunk in chunks) == content
    for chunk in chunks:
        assert content[: chunk.start].count(b"\n") + 1 == chunk.first_line
        assert content[chunk.stop - 1 : chunk.stop] == b"\n"


def test_the_fingerprint_follows_the_files(data):
    before = find_input(data).fingerprint
    assert find_input(data).fingerprint == before
    os.utime(data, ns=(1, 1))
    assert find_input(data).fingerprint != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "must map source names"),
        ("{", "cannot be read"),
        ('{"a": {"root": "."}}', "needs `root` and `annotation`"),
        ('{"a": {"root": ".", "annotation": "nowhere.jsonl"}}', "does not exist"),
        ('{"a/b": {"root": ".", "annotation": "x"}}', "cannot be a file's name"),
    ],
)
def test_a_wrong_meta_json_is_one_clear_error(tmp_path, content, message):
    (tmp_path / "meta.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        find_input(tmp_path / "meta.json")


def test_nothing_to_read(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        find_input(tmp_path / "no.jsonl")
    with pytest.raises(ConfigError, match="no shards"):
        find_input(tmp_path)
