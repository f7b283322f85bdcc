"""The index: columns, content fingerprint, sidecar, parallel building, and what damage does."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import webdataset as wds
from PIL import Image

from internvl_lab.config import SourceConfig
from internvl_lab.data.index import ShardIndex, build_index, load_or_build_index, read_member
from internvl_lab.data.loader import PackDataset
from internvl_lab.data.mixture import Mixture
from internvl_lab.data.plan import Plan
from internvl_lab.data.scan import ShardScan, scan_shard
from internvl_lab.data.shards import write_shards
from internvl_lab.errors import ShardError
from internvl_lab.text import ChatTemplate


@pytest.fixture
def folder(shards_dir: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage."""
    return Path(shutil.copytree(shards_dir, tmp_path / "shards", ignore=shutil.ignore_patterns(".*")))


def same(a: ShardIndex, b: ShardIndex) -> bool:
    names = ["stamps", "shard", "key", "json_offset", "json_crc", "text_tokens", "kind", "image_start", "width"]
    return a.problems == b.problems and all(np.array_equal(getattr(a, n), getattr(b, n)) for n in names)


def test_columns_address_the_bytes(shards_dir: Path, template: ChatTemplate, kit: SimpleNamespace) -> None:
    index = build_index(shards_dir, template)
    assert len(index) == 100 and index.problems == []
    assert [path.name for path in index.shards] == [f"shard-00000{i}.tar" for i in range(4)]
    for row in (0, 26, 99):
        raw = kit.sample(row)
        assert index.key[row] == raw.key
        assert json.loads(index.read_json(row)) == raw.record
        assert index.read_images(row) == [data for _, data in raw.images]
    assert index.kind.tolist() == [0, 1, 2, 3] * 25
    assert index.task[1] == "one"


def test_shards_of_webdataset_s_own_writers_are_taken_as_they_are(
    tmp_path: Path, template: ChatTemplate, kit: SimpleNamespace
) -> None:
    picture = Image.new("RGB", (60, 40), "red")
    talk, two = kit.talk(), kit.talk("<image> or <image>?")
    samples: list[dict[str, object]] = [
        {"__key__": "a/0000", "json": {"conversations": talk}},
        {"__key__": "a/0001", "json": {"conversations": talk, "image": "coco/1.jpg"}, "jpg": picture},
        {"__key__": "a/0002", "json": {"conversations": two}, "1.png": picture, "0.jpeg": picture, "txt": "caption"},
        {"__key__": "b/0003", "json": {"conversations": talk, "video": "v.mp4"}, "0.png": picture, "1.png": picture},
    ]
    with wds.ShardWriter(str(tmp_path / "%06d.tar"), maxcount=2, verbose=0) as writer:
        for sample in samples:
            writer.write(sample)
    with wds.TarWriter(str(tmp_path / "more.tar")) as writer:
        writer.write({"__key__": "last", "json": {"conversations": talk}})
    index = build_index(tmp_path, template)
    assert index.key.tolist() == [*(sample["__key__"] for sample in samples), "last"] and index.problems == []
    assert index.kind.tolist() == [0, 1, 2, 3, 0] and index.shard.tolist() == [0, 0, 1, 1, 2]
    mixture = Mixture({"a": (SourceConfig(), index)}, kit.tiling, kit.packing)
    dataset = PackDataset(Plan(mixture, kit.packing, 0, kit.cost, 1), kit.encoder, 0)
    packs = [dataset[number] for number in range(dataset.plan.packs_in_epoch(0))]
    assert sorted(key for pack in packs for key in pack.sample_keys) == sorted(index.key)
    assert all(pack.bad_samples == [] for pack in packs)


def test_only_changed_shards_are_scanned_again(
    folder: Path, template: ChatTemplate, kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_or_build_index(folder, template)
    scanned: list[str] = []

    def spy(path: Path, template: ChatTemplate, name: str) -> ShardScan:
        scanned.append(name)
        return scan_shard(path, template, name)

    monkeypatch.setattr("internvl_lab.data.index.scan_shard", spy)
    (folder / "shards.json").unlink()
    write_shards([kit.sample(i) for i in (25, 26, 200)], folder / "new", 3)
    os.replace(folder / "new" / "shard-000000.tar", folder / "shard-000001.tar")
    kit.write_tar(folder / "shard-000004.tar", [("x.json", kit.record_bytes()), ("y.json", b"{")])
    (folder / "shard-000003.tar").unlink()
    (folder / "shard-000004.tar").rename(folder / "shard-000003.tar")
    second = load_or_build_index(folder, template)
    assert scanned == ["shard-000001.tar", "shard-000003.tar"]
    assert same(second, build_index(folder, template)) and second.fingerprint != first.fingerprint
    assert [problem[:2] for problem in second.problems] == [("shard-000003.tar", "y")]
    scanned.clear()
    (folder / "shard-000002.tar").unlink()
    (folder / "shard-000003.tar").rename(folder / "shard-000002.tar")  # the time is the old one's
    third = load_or_build_index(folder, template)
    assert scanned == ["shard-000002.tar"] and same(third, build_index(folder, template))


def test_a_key_that_is_free_again_comes_back(tmp_path: Path, template: ChatTemplate, kit: SimpleNamespace) -> None:
    for name in ("a", "b"):
        kit.write_tar(tmp_path / f"{name}.tar", [("x.json", kit.record_bytes()), (f"{name}.json", kit.record_bytes())])
    assert load_or_build_index(tmp_path, template).key.tolist() == ["x", "a", "b"]
    kit.write_tar(tmp_path / "a.tar", [("a.json", kit.record_bytes(task="new"))])
    index = load_or_build_index(tmp_path, template)
    assert index.key.tolist() == ["a", "x", "b"] and index.problems == []


def test_processes_change_nothing(shards_dir: Path, template: ChatTemplate) -> None:
    assert same(build_index(shards_dir, template, num_workers=2), build_index(shards_dir, template))


def test_fingerprint_is_of_the_content_not_the_place(shards_dir: Path, folder: Path, template: ChatTemplate) -> None:
    before = build_index(shards_dir, template).fingerprint
    assert build_index(folder, template).fingerprint == before
    shard = folder / "shard-000001.tar"
    data = shard.read_bytes()
    shard.write_bytes(data.replace(b"what is it?", b"what is he?", 1))
    assert build_index(folder, template).fingerprint != before


def test_sidecar_is_used_until_a_shard_changes(
    folder: Path, template: ChatTemplate, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_or_build_index(folder, template)
    with monkeypatch.context() as patch:
        patch.setattr("internvl_lab.data.index._build", lambda *_: pytest.fail("built again"))
        again = load_or_build_index(folder, template)
    assert same(first, again) and again.fingerprint == first.fingerprint and again.shards == first.shards
    os.utime(folder / "shard-000000.tar", ns=(1, 1))
    assert not same(load_or_build_index(folder, template), first)


@pytest.mark.parametrize("name", ["shard-000000.tar", "shard-000002.tar", "shard-000003.tar"])
def test_missing_shard_is_fatal_and_named(folder: Path, template: ChatTemplate, name: str) -> None:
    load_or_build_index(folder, template)
    (folder / name).unlink()
    for build in (build_index, load_or_build_index):
        with pytest.raises(ShardError, match=rf"lacks 1 of its shards: {name} \(shards\.json lists it\)"):
            build(folder, template)
    (folder / "shards.json").write_text("{")
    with pytest.raises(ShardError, match=r"shards\.json cannot be read"):
        load_or_build_index(folder, template)


def test_foreign_shards_may_not_have_a_gap(folder: Path, template: ChatTemplate, kit: SimpleNamespace) -> None:
    (folder / "shards.json").unlink()
    (folder / "shard-000000.tar").unlink()  # a sequence may begin and end anywhere: parts are held out this way
    for year in (2014, 2017):
        kit.write_tar(folder / f"coco-{year}.tar", [(f"c{year}.json", kit.record_bytes())])
    assert len(build_index(folder, template)) == 77
    (folder / "shard-000002.tar").unlink()
    with pytest.raises(ShardError, match=r"shard-000002\.tar \(the numbers of the others leave a gap\)"):
        load_or_build_index(folder, template)


def test_broken_sidecar_is_built_again(folder: Path, template: ChatTemplate) -> None:
    index = load_or_build_index(folder, template)
    (sidecar,) = folder.glob(".index-*.npz")
    sidecar.write_bytes(sidecar.read_bytes()[:1000])
    with pytest.raises(ShardError, match="cannot be read"):
        ShardIndex.load(sidecar)
    assert same(load_or_build_index(folder, template), index)
    assert not list(folder.glob("*.partial"))


def test_read_only_folder_works_without_sidecar(
    folder: Path, template: ChatTemplate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("read only")

    monkeypatch.setattr(ShardIndex, "save", refuse)
    assert len(load_or_build_index(folder, template)) == 100
    assert "cannot be kept" in caplog.text


def test_saved_elsewhere_it_still_finds_its_shards(shards_dir: Path, template: ChatTemplate, tmp_path: Path) -> None:
    index = build_index(shards_dir, template)
    index.problems.append(("s", "k", "r", "d"))
    index.save(tmp_path / "i.npz")
    loaded = ShardIndex.load(tmp_path / "i.npz")
    assert same(loaded, index)
    assert loaded.read_json(3) == index.read_json(3)


def test_other_version_is_refused(
    shards_dir: Path, template: ChatTemplate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = build_index(shards_dir, template)
    with monkeypatch.context() as patch:
        patch.setattr("internvl_lab.data.index.VERSION", 99)
        index.save(tmp_path / "i.npz")
    with pytest.raises(ShardError, match="another version"):
        ShardIndex.load(tmp_path / "i.npz")


def test_missing_and_empty_folders(tmp_path: Path, template: ChatTemplate) -> None:
    with pytest.raises(ShardError, match="nowhere does not exist"):
        load_or_build_index(tmp_path / "nowhere", template)
    with pytest.raises(ShardError, match="holds no shards"):
        build_index(tmp_path, template)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_damaged_shard_is_fatal_and_named(folder: Path, template: ChatTemplate, num_workers: int) -> None:
    shard = folder / "shard-000002.tar"
    shard.write_bytes(shard.read_bytes()[:-15000])
    with pytest.raises(ShardError, match=r"shard-000002\.tar"):
        build_index(folder, template, num_workers)


def test_key_in_two_shards_is_a_problem_of_the_later(
    tmp_path: Path, template: ChatTemplate, kit: SimpleNamespace
) -> None:
    kit.write_tar(tmp_path / "a.tar", [("x.json", kit.record_bytes(task="first"))])
    kit.write_tar(tmp_path / "b.tar", [("x.json", kit.record_bytes()), ("y.json", kit.record_bytes())])
    index = build_index(tmp_path, template)
    assert index.key.tolist() == ["x", "y"] and index.task[0] == "first"
    assert [problem[:3] for problem in index.problems] == [("b.tar", "x", "duplicate_key")]


def test_shard_that_shrinks_or_goes_away_later(folder: Path, template: ChatTemplate) -> None:
    index = build_index(folder, template)
    os.truncate(folder / "shard-000001.tar", 100)
    with pytest.raises(ShardError, match=r"shard-000001\.tar is shorter"):
        index.read_json(30)
    (folder / "shard-000003.tar").unlink()
    with pytest.raises(ShardError, match=r"shard-000003\.tar cannot be read"):
        read_member(index, 3, 0, 10)
