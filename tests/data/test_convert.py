"""The authors' meta file becomes shards, a list of rejected lines, and overrides that our config reads."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from internvl_lab.config import SourceConfig
from internvl_lab.config.compose import compose
from internvl_lab.data.convert import convert
from internvl_lab.data.index import build_index
from internvl_lab.errors import ConfigError
from internvl_lab.text import ChatTemplate


@pytest.fixture
def meta(tmp_path: Path, kit: SimpleNamespace) -> Path:
    root = tmp_path / "files"
    root.mkdir()
    (root / "a.png").write_bytes(kit.picture())
    good, text = {"image": "a.png", "conversations": kit.talk()}, {"conversations": kit.talk()}
    lost = {"image": "lost.png", "conversations": kit.talk()}
    (root / "one.jsonl").write_text("\n".join(map(json.dumps, [good, text, lost, good])) + "\nbroken\n")
    (root / "two.jsonl").write_text(json.dumps(text))
    entry = {"root": str(root), "data_augment": True, "max_dynamic_patch": 6, "repeat_time": 2, "length": 5}
    sources = {
        "one": {**entry, "annotation": str(root / "one.jsonl")},
        "two": {"root": str(root), "annotation": str(root / "two.jsonl"), "repeat_time": 0.5},
    }
    path = tmp_path / "meta.json"
    path.write_text(json.dumps(sources))
    return path


def test_convert(meta: Path, tmp_path: Path, template: ChatTemplate) -> None:
    out = tmp_path / "out"
    report = convert(meta, out, samples_per_shard=2, progress=False)
    assert (report.num_written, report.num_rejected) == (4, 2)
    assert report.sources["one"].rejected == {"missing_file": 1, "bad_json": 1}
    assert report.sources["one"].shards == 2
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert [(line["source"], line["key"], line["reason"]) for line in rejected] == [
        ("one", "one-00000003", "missing_file"),
        ("one", "one-00000005", "bad_json"),
    ]
    index = build_index(out / "one", template)
    assert index.key.tolist() == ["one-00000001", "one-00000002", "one-00000004"]
    assert index.kind.tolist() == [1, 0, 1]
    assert (out / "overrides.txt").read_text().splitlines() == report.overrides
    assert compose(["scale=full", *report.overrides]).data.mixtures["finetune"] == {
        "one": SourceConfig(shards=str(out / "one"), repeat=2.0, max_tiles=6, jpeg=True),
        "two": SourceConfig(shards=str(out / "two"), repeat=0.5, jpeg=False),
    }


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["finetune"], ["finetune"]),
        (["a.b", "a_b", "a b"], ["a_b", "a_b_", "a_b__"]),
        (["2014x", "null"], ["_2014x", "null"]),
        (["it's: {odd}, [very] = so\t(x) \\"], ["it_s___odd____very____so__x___"]),
    ],
)
def test_overrides_of_any_source_name(tmp_path: Path, names: list[str], keys: list[str]) -> None:
    (tmp_path / "a.jsonl").touch()
    entry = {"root": str(tmp_path), "annotation": str(tmp_path / "a.jsonl"), "data_augment": True}
    (tmp_path / "meta.json").write_text(json.dumps(dict.fromkeys(names, entry)))
    report = convert(tmp_path / "meta.json", tmp_path / "out", progress=False)
    found = compose(report.overrides).data.mixtures["finetune"]
    expected = [SourceConfig(shards=str(tmp_path / "out" / name)) for name in names]
    assert found == dict(zip(keys, expected, strict=True))


def test_numbers_are_checked(meta: Path, tmp_path: Path) -> None:
    for name in ("stored_frames", "samples_per_shard"):
        with pytest.raises(ConfigError, match=f"{name}=0 must be at least 1"):
            convert(meta, tmp_path / "out", **{name: 0})


def test_existing_source_is_not_overwritten(meta: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "two").mkdir(parents=True)
    with pytest.raises(ConfigError, match="two exists already"):
        convert(meta, tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / "one").exists()


def test_the_same_command_again_changes_nothing(meta: Path, tmp_path: Path) -> None:
    first = convert(meta, tmp_path / "out", progress=False)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.tar")}
    assert convert(meta, tmp_path / "out", progress=False) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.tar")} == before
    with pytest.raises(ConfigError, match="one exists already, made from something else"):
        convert(meta, tmp_path / "out", samples_per_shard=7)


def test_interruption_leaves_no_source_folder(meta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="stop"):
        patch.setattr("internvl_lab.data.shards._members", lambda sample: (_ for _ in ()).throw(RuntimeError("stop")))
        convert(meta, tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / "one").exists()
    assert convert(meta, tmp_path / "out", progress=False).num_written == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("{}", "must map source names"),
        ('{"a": {"root": "x"}}', "'a' needs `root` and `annotation`"),
        ('{"a/b": {"root": "x", "annotation": "y"}}', "cannot be a folder name"),
        ('{"a": {"root": "x", "annotation": "nowhere.jsonl"}}', "nowhere.jsonl of source 'a' does not exist"),
    ],
)
def test_broken_meta(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "meta.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        convert(path, tmp_path / "out")
