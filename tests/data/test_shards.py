"""Writing shards: readable by webdataset, deterministic, never half; and reading users' JSONL."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import webdataset as wds

from internvl_lab.data.shards import RawSample, read_jsonl_samples, write_shards
from internvl_lab.errors import ConfigError, SampleError


def test_round_trip_through_webdataset(kit: SimpleNamespace, tmp_path: Path) -> None:
    samples = [kit.sample(i) for i in range(7)]
    paths = write_shards(samples, tmp_path / "out", 3, progress=False)
    assert [path.name for path in paths] == [f"shard-00000{i}.tar" for i in range(3)]
    assert sorted(os.listdir(tmp_path / "out")) == [*(path.name for path in paths), "shards.json"]
    manifest = json.loads((tmp_path / "out" / "shards.json").read_text())
    assert manifest["shards"] == {"shard-000000.tar": 3, "shard-000001.tar": 3, "shard-000002.tar": 1}
    for path in paths:
        assert manifest["bytes"][path.name] == path.stat().st_size
        assert manifest["sha256"][path.name] == hashlib.sha256(path.read_bytes()).hexdigest()
    read = list(wds.WebDataset([str(path) for path in paths], shardshuffle=False))
    assert [item["__key__"] for item in read] == [sample.key for sample in samples]
    for item, sample in zip(read, samples, strict=True):
        assert json.loads(item["json"]) == sample.record
        assert [item[f"{n}.{ext}"] for n, (ext, _) in enumerate(sample.images)] == [data for _, data in sample.images]


def test_bytes_depend_on_the_samples_alone(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_shards([kit.sample(i) for i in range(4)], tmp_path / "a", 4)[0].read_bytes()
    monkeypatch.setattr("time.time", lambda: 12345.0)
    monkeypatch.setenv("USER", "somebody")
    assert write_shards([kit.sample(i) for i in range(4)], tmp_path / "b", 4)[0].read_bytes() == first


def test_interrupted_writing_leaves_whole_shards_only(kit: SimpleNamespace, tmp_path: Path) -> None:
    def failing() -> Iterator[RawSample]:
        yield from (kit.sample(i) for i in range(5))
        raise RuntimeError("interrupted")

    (tmp_path / "shards.json").write_text('{"shards": {"of-before.tar": 1}}')
    with pytest.raises(RuntimeError, match="interrupted"):
        write_shards(failing(), tmp_path, 3)
    assert os.listdir(tmp_path) == ["shard-000000.tar"]


def test_nothing_to_write_and_bad_arguments(kit: SimpleNamespace, tmp_path: Path) -> None:
    assert write_shards([], tmp_path, 3, progress=True, total=0) == []
    with pytest.raises(ConfigError, match="samples_per_shard=0"):
        write_shards([], tmp_path, 0)
    with pytest.raises(ValueError, match=r"'a\.b'"):
        write_shards([RawSample("a.b", {}, ())], tmp_path, 3)


def write_jsonl(folder: Path, lines: list[object]) -> Path:
    path = folder / "an.no.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_read_jsonl_samples(kit: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "a.JPG").write_bytes(kit.picture(kind="JPEG"))
    (tmp_path / "img" / "b.png").write_bytes(kit.picture())
    (tmp_path / "img" / "bad.png").write_bytes(b"nothing")
    for n in (10, 9, 1):
        (tmp_path / "img" / "v").mkdir(exist_ok=True)
        (tmp_path / "img" / "v" / f"f_{n}.png").write_bytes(kit.picture(10 + n, 10))
    one, two = kit.talk(), kit.talk("<image><image>")
    lines: list[object] = [
        {"conversations": one},
        {"image": "a.JPG", "conversations": one},
        {"image": ["b.png", "a.JPG"], "conversations": two},
        {"video": "v", "conversations": one},
        "{broken",
        {"image": "missing.png", "conversations": one},
        {"image": "bad.png", "conversations": one},
        {"image": "../../etc/passwd", "conversations": one},
        {"image": "/etc/passwd", "conversations": one},
        {"image": "s3://bucket/x.png", "conversations": one},
        {"image": "b.png", "conversations": two},
        {"video": "v", "clip": [0, 1], "conversations": one},
        {"video": "none.gif", "conversations": one},
    ]
    found = list(read_jsonl_samples(write_jsonl(tmp_path, lines), tmp_path / "img"))
    good = [item for item in found if isinstance(item, RawSample)]
    assert [sample.key for sample in good] == [f"an_no-{n:08d}" for n in (1, 2, 3, 4)]
    assert [[ext for ext, _ in sample.images] for sample in good] == [[], ["jpg"], ["png", "jpg"], ["png"] * 3]
    assert [data for _, data in good[3].images] == [kit.picture(10 + n, 10) for n in (1, 9, 10)]
    reasons = [item.reason for item in found if isinstance(item, SampleError)]
    assert reasons == [
        "bad_json", "missing_file", "corrupt_image", "path_outside_root", "path_outside_root", "remote_path",
        "image_count", "video_clip", "missing_file",
    ]  # fmt: skip
    assert [item.key for item in found] == [f"an_no-{n:08d}" for n in range(1, 14)]


def test_prefix_and_path_with_dots_inside_the_root(kit: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(kit.picture())
    path = write_jsonl(tmp_path, [{"image": "x/../b.png", "conversations": kit.talk()}])
    (sample,) = read_jsonl_samples(path, tmp_path, prefix="my set/1")
    assert isinstance(sample, RawSample) and sample.key == "my_set_1-00000001"
