"""What `shards` may be: a folder, numbered files, URLs; and what is missing is named."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from internvl_lab.data.index import load_or_build_index
from internvl_lab.data.locations import (
    MAX_OPEN_SHARDS,
    OpenShards,
    ShardSet,
    _expand,
    find_shards,
    locate_shards,
    locate_streams,
)
from internvl_lab.errors import ConfigError, ShardError
from internvl_lab.text import ChatTemplate


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_folder_and_braces_find_the_same(shards_dir: Path, prefix: str) -> None:
    folder = locate_shards(f"{prefix}{shards_dir}")
    assert folder == locate_shards(f"{prefix}{shards_dir}/shard-{{000000..000003}}.tar") == locate_shards(shards_dir)
    assert folder == ShardSet(str(shards_dir), tuple(f"shard-00000{i}.tar" for i in range(4)))
    assert folder.location(2) == str(shards_dir / "shard-000002.tar")
    assert locate_shards(f"{shards_dir}/shard-000001.tar").names == ("shard-000001.tar",)


@pytest.mark.parametrize(
    ("text", "base", "names"),
    [
        ("https://h/d/{0..2}.tar", "https://h/d", ("0.tar", "1.tar", "2.tar")),
        ("s3://b/{x,y}/{08..09}.tar", "s3://b", ("x/08.tar", "x/09.tar", "y/08.tar", "y/09.tar")),
        ("https://h/a.tar::https://h/b.tar", "https://h", ("a.tar", "b.tar")),
        ("https://g/a.tar::https://h/b.tar", "https:/", ("g/a.tar", "h/b.tar")),
        ("a/{0..1}.tar", "a", ("0.tar", "1.tar")),
        ("one.tar", ".", ("one.tar",)),
    ],
)
def test_braces(text: str, base: str, names: tuple[str, ...]) -> None:
    assert _expand(text) == (base, names)
    urls = [ShardSet(base, names).location(i) for i in range(len(names))]
    assert "::" not in text or urls == text.split("::")


def test_numbered_files_share_the_folder_s_index_with_other_shards(
    shards_dir: Path, template: ChatTemplate, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(shards_dir, tmp_path / "s", ignore=shutil.ignore_patterns(".*")))
    part = load_or_build_index(f"{folder}/shard-{{000001..000002}}.tar", template)
    assert part.key.tolist() == [f"s{i:05d}" for i in range(25, 75)]
    assert len(load_or_build_index(folder, template)) == 100
    assert part.fingerprint == load_or_build_index(f"{folder}/shard-{{000001..000002}}.tar", template).fingerprint


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"2 of the 2 shards .*a\{0\.\.1\}\.tar do not exist: a0\.tar, a1\.tar"):
        locate_shards(f"{tmp_path}/a{{0..1}}.tar")
    with pytest.raises(ConfigError, match="what a command writes can only be streamed"):
        locate_shards("pipe:cat x.tar")
    (tmp_path / "a.tar.gz").touch()
    with pytest.raises(ShardError, match=r"holds no shards \(\*\.tar\) \(compressed tars"):
        find_shards(tmp_path)


@pytest.mark.parametrize("manifest", ["[]", '{"shards": []}', "{"])
def test_broken_manifest(tmp_path: Path, kit: SimpleNamespace, manifest: str) -> None:
    kit.write_tar(tmp_path / "a.tar", [("x.json", kit.record_bytes())])
    (tmp_path / "shards.json").write_text(manifest)
    with pytest.raises(ShardError, match=r"manifest .*shards\.json cannot be read"):
        find_shards(tmp_path)


def test_read_and_stamps(shards_dir: Path) -> None:
    shards = locate_shards(shards_dir)
    stamps = shards.stamps()
    assert stamps.shape == (4, 2) and stamps[1, 0] == (shards_dir / "shard-000001.tar").stat().st_size
    data = (shards_dir / "shard-000001.tar").read_bytes()
    assert shards.read(1, 5, 20, stamps[1]) == data[5:25]
    with shards.open(1) as file:
        assert file.read(10) == data[:10]
    with pytest.raises(ShardError, match=r"nowhere/a\.tar cannot be read"):
        ShardSet("nowhere", ("a.tar",)).open(0)


def test_open_shards_are_bounded_and_new_stamps_open_anew(tmp_path: Path) -> None:
    shards = OpenShards()
    files = []
    for i in range(MAX_OPEN_SHARDS + 3):
        path = tmp_path / f"{i}"
        path.write_bytes(b"x")
        files.append(shards.get(path, 0))
    assert [file.closed for file in files] == [True] * 3 + [False] * MAX_OPEN_SHARDS
    assert shards.get(tmp_path / "5", 0) is files[5]
    assert shards.get(tmp_path / "5", 1) is not files[5]
    assert np.array([file.closed for file in files]).sum() == 4


def test_streams_are_named_one_by_one(shards_dir: Path) -> None:
    assert locate_streams("pipe:cat {0..1}.tar") == ("pipe:cat 0.tar", "pipe:cat 1.tar")
    assert locate_streams("https://h/get?n={0..1}") == ("https://h/get?n=0", "https://h/get?n=1")
    assert locate_streams("pipe:cat a::s3://b/c.tar") == ("pipe:cat a", "s3://b/c.tar")
    paths = tuple(str(path) for path in sorted(shards_dir.glob("*.tar")))
    assert locate_streams(str(shards_dir)) == locate_streams(f"file://{shards_dir}") == paths
    with pytest.raises(ShardError, match="do not exist"):
        locate_streams(f"{shards_dir}/none.tar")
