"""Tars from commands, web servers and files: read to the end, or an error that says what went wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest

from internvl_lab.data.parent import STOP_SIGNALS
from internvl_lab.data.scan import Problem
from internvl_lab.data.tar_stream import Command, RemoteFile, read_tar
from internvl_lab.errors import ConfigError, ShardError


@pytest.fixture
def tar(shards_dir: Path) -> Path:
    return shards_dir / "shard-000001.tar"


def keys(url: str) -> list[str]:
    return [key for key, _ in read_tar(url, [])]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RemoteFile, "wait_s", 0.01)


def test_every_way_brings_the_same_samples(tar: Path, plain_server: Any) -> None:
    expected = [f"s{i:05d}" for i in range(25, 50)]
    fsspec.filesystem("memory").pipe("/streams/x.tar", tar.read_bytes())
    command = f"pipe:cat {tar} 2>/dev/null | cat"
    for url in (
        str(tar),
        f"pipe:cat {tar}",
        command,
        f"{plain_server.url}/{tar.name}?part=1",
        "memory://streams/x.tar",
    ):
        assert keys(url) == expected, url
    samples = dict(read_tar(f"pipe:cat {tar}", []))
    assert set(samples["s00026"]) == {"0.jpg", "1.jpg", "json"} and samples["s00026"]["0.jpg"][:2] == b"\xff\xd8"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("pipe:cat {tar}.gone", r"ended with status 1: cat: .*shard-000001\.tar\.gone: No such file"),
        ("pipe:cat {tar}; exit 3", "exit 3 ended with status 3$"),
        ("pipe:head -c 30000 {tar}; exit 3", "ended with status 3"),
        ("pipe:head -c 30000 {tar}", "has no end marker: truncated"),
        ("pipe:cat {tar}.gone 2>/dev/null | cat", r"is empty \(0 bytes\)"),
        ("pipe:gzip -c {tar}", "is compressed: unpack it, as in `pipe:gzip -dc FILE`"),
        ("pipe:cat {tar} {tar}", "goes on behind its end marker"),
        ("pipe:tail -c +700 {tar}", "has a corrupt header at byte 0"),
        ("pipe:head -c 10240 /dev/zero", "holds no sample"),
        ("{tar}.gone", "cannot be read: .*No such file"),
    ],
)
def test_what_is_not_a_whole_tar_is_an_error(tar: Path, command: str, message: str) -> None:
    with pytest.raises(ShardError, match=message):
        keys(command.format(tar=tar))


def test_damage_behind_good_samples_is_an_error(tar: Path, tmp_path: Path) -> None:
    """webdataset alone ends here without a word (research/data_pipeline, section 5)."""
    data = bytearray(tar.read_bytes())
    place = data.index(b"s00040", 20000) + 3
    data[place] ^= 1
    (tmp_path / "x.tar").write_bytes(data)
    seen = []
    with pytest.raises(ShardError, match=r"has a corrupt header at byte \d+ \(checksum\)"):
        seen += keys(f"pipe:cat {tmp_path}/x.tar")
    assert not seen


def test_a_broken_line_is_picked_up_where_it_broke(tar: Path, plain_server: Any) -> None:
    expected = keys(str(tar))
    plain_server.cuts = 3
    assert keys(f"{plain_server.url}/{tar.name}") == expected
    plain_server.cuts = 100
    with pytest.raises(ShardError, match=rf"{plain_server.url}/{tar.name} cannot be fetched after 5 attempts"):
        keys(f"{plain_server.url}/{tar.name}")
    with pytest.raises(ShardError, match=r"none\.tar is not there or not readable"):
        keys(f"{plain_server.url}/none.tar")


def test_the_first_of_two_members_wins_and_the_other_is_a_fault(kit: SimpleNamespace, tmp_path: Path) -> None:
    members = [("a.json", kit.record_bytes()), ("a.json", b"{}"), ("b.json", kit.record_bytes())]
    path = str(kit.write_tar(tmp_path / "x.tar", members))
    faults: list[Problem] = []
    samples = dict(read_tar(path, faults))
    assert list(samples) == ["a", "b"] and samples["a"]["json"] == kit.record_bytes()
    assert faults == [(path, "a", "duplicate_key", "member 'a.json' comes twice")]


def test_a_reader_that_stops_ends_the_command(tar: Path) -> None:
    source = Command(f"pipe:cat {tar}; sleep 600")
    assert source.read(1000) == tar.read_bytes()[:1000]
    source.close()
    assert source._process.poll() is not None
    reading = read_tar(f"pipe:cat {tar}; sleep 600", [])
    next(reading)
    reading.close()


def test_a_command_outlives_the_signals_of_a_cluster(tar: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    source = Command(f"pipe:echo up; read -r line < {tmp_path}/go; cat {tar}")
    assert source.read(3) == b"up\n"
    for signum in STOP_SIGNALS:
        os.kill(source._process.pid, signum)
    (tmp_path / "go").write_text("on\n")
    assert len(source.read(1 << 30)) == tar.stat().st_size
    source.finish()
    source.close()


def test_missing_drivers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ConfigError, match=r"shards s3://b/x\.tar cannot be opened: .*`pip install s3fs`"):
        keys("s3://b/x.tar")
