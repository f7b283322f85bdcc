"""Shards behind a web server of this machine that fails in every way: retried, checked, bounded, never half."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from internvl_lab.config import SourceConfig
from internvl_lab.data.index import ShardIndex, build_index, load_or_build_index
from internvl_lab.data.loader import PackDataset, PackLoader
from internvl_lab.data.locations import locate_shards
from internvl_lab.data.mixture import Mixture
from internvl_lab.data.plan import Plan
from internvl_lab.data.remote import ShardCache, is_remote
from internvl_lab.errors import ConfigError, ShardError
from internvl_lab.text import ChatTemplate

SHARDS = "shard-{000000..000003}.tar"


class Server(ThreadingHTTPServer):
    """Serve a folder; `faults` says what goes wrong with the next answers of a file, `asked` what was fetched."""

    faults: dict[str, list[str]]
    asked: list[str]


class Handler(SimpleHTTPRequestHandler):
    """Answer, or fail as ordered."""

    server: Server

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        self.server.asked.append(name)
        orders = self.server.faults.get(name, [])
        fault = orders.pop(0) if orders else ""
        if not fault:
            super().do_GET()
            return
        data = Path(self.translate_path(self.path)).read_bytes()
        if fault == "500":
            self.send_error(500)
            return
        self.send_response(200)
        if fault == "cut":  # the line breaks in the middle of the announced body
            self.send_header("Content-Length", str(len(data)))
        elif fault == "short":  # a proxy announces and sends less than there is
            self.send_header("Content-Length", str(len(data) // 2))
        else:  # "garbled": the right number of wrong bytes
            self.send_header("Content-Length", str(len(data)))
            data = bytes(len(data))
        self.end_headers()
        self.wfile.write(data if fault == "garbled" else data[: len(data) // 2])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def served(shards_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shards_dir, tmp_path / "served", ignore=shutil.ignore_patterns(".*")))


@pytest.fixture
def server(served: Path) -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), partial(Handler, directory=str(served)))
    server.faults, server.asked = {}, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def base(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(tmp_path / "cache", 10**9, attempts=3, wait_s=0.01)


def copies(cache: ShardCache) -> list[str]:
    return sorted(path.name for path in (cache.folder / "shards").rglob("*") if path.is_file())


@pytest.mark.parametrize("spec", [SHARDS, ""])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_remote_index_is_the_local_one(
    base: str, spec: str, cache: ShardCache, served: Path, template: ChatTemplate, num_workers: int
) -> None:
    index = load_or_build_index(f"{base}/{spec}", template, num_workers, cache)
    local = build_index(served, template)
    assert index.fingerprint == local.fingerprint and index.shards != local.shards
    for row in (0, 30, 99):
        assert index.read_json(row) == local.read_json(row) and index.read_images(row) == local.read_images(row)
    assert copies(cache) == [f"shard-00000{i}.tar" for i in range(4)]


def test_sidecar_and_copies_are_used_again(
    base: str, cache: ShardCache, server: Server, template: ChatTemplate, served: Path
) -> None:
    first = load_or_build_index(f"{base}/{SHARDS}", template, 0, cache)
    server.asked.clear()
    again = load_or_build_index(f"{base}/{SHARDS}", template, 0, cache)
    assert again.fingerprint == first.fingerprint and again.read_json(5) == first.read_json(5)
    assert [name for name in server.asked if name.endswith(".tar")] == []
    (served / "shards.json").unlink()  # then size and date tell whether a shard has changed
    load_or_build_index(f"{base}/{SHARDS}", template, 0, cache)
    os.utime(served / "shard-000001.tar", (1, 1))
    server.asked.clear()
    assert load_or_build_index(f"{base}/{SHARDS}", template, 0, cache).fingerprint == first.fingerprint


@pytest.mark.parametrize("fault", ["500", "cut", "short", "garbled"])
@pytest.mark.parametrize("with_manifest", [True, False])
def test_failures_are_tried_again(
    base: str, cache: ShardCache, server: Server, served: Path, fault: str, with_manifest: bool
) -> None:
    name = "shard-000002.tar"
    data = (served / name).read_bytes()
    sha256 = hashlib.sha256(data).hexdigest() if with_manifest else None
    server.faults = {name: [fault, fault]}
    with cache.open(f"{base}/{name}", len(data) if with_manifest else -1, sha256) as file:
        assert file.read() == data
    assert server.asked == [name] * 3 and copies(cache) == [name]
    cache.path(f"{base}/{name}").unlink()
    server.faults = {name: [fault] * 3}
    with pytest.raises(ShardError, match=rf"{base}/{name} cannot be fetched after 3 attempts: "):
        cache.open(f"{base}/{name}", len(data), sha256)
    assert copies(cache) == [f"{name}.partial"]  # never under its own name


def test_missing_shard_and_missing_manifest(
    base: str, cache: ShardCache, server: Server, served: Path, template: ChatTemplate
) -> None:
    (served / "shard-000001.tar").unlink()
    with pytest.raises(ShardError, match=r"shard-000001\.tar.* is not there"):
        build_index(f"{base}/{SHARDS}", template, 0, cache)
    (served / "shards.json").unlink()
    with pytest.raises(ShardError, match=r"shard-000001\.tar is not there or not readable"):
        build_index(f"{base}/{SHARDS}", template, 0, cache)
    with pytest.raises(ShardError, match=r"has no shards\.json that lists shards: name them, as in http"):
        locate_shards(base, cache)
    (served / "shards.json").write_text("[")
    with pytest.raises(ShardError, match=r"manifest http.*shards\.json cannot be read"):
        locate_shards(base, cache)
    assert server.asked.count("shard-000001.tar") <= 4  # a missing file is not asked for again and again


def test_damaged_remote_shard_is_named(base: str, cache: ShardCache, served: Path, template: ChatTemplate) -> None:
    (served / "shards.json").unlink()
    shard = served / "shard-000003.tar"
    shard.write_bytes(shard.read_bytes()[:-15000])
    with pytest.raises(ShardError, match=rf"{base}/shard-000003\.tar cannot be fetched after 3 attempts: .*truncated"):
        build_index(f"{base}/{SHARDS}", template, 0, cache)


def test_changed_content_is_never_served_from_the_cache(base: str, cache: ShardCache, served: Path) -> None:
    url = f"{base}/shard-000000.tar"
    cache.open(url).close()
    data = (served / "shard-000001.tar").read_bytes()
    (served / "shard-000000.tar").write_bytes(data)
    with cache.open(url, len(data)) as file:
        assert file.read() == data


def test_cache_is_bounded_and_the_oldest_goes(base: str, cache: ShardCache, served: Path) -> None:
    names = [f"shard-00000{i}.tar" for i in range(4)]
    sizes = [(served / name).stat().st_size for name in names]
    small = ShardCache(cache.folder, 3 * max(sizes))
    for name in (*names[:3], names[0], names[3]):
        small.open(f"{base}/{name}").close()
    assert copies(small) == [names[0], names[2], names[3]]
    held = small.open(f"{base}/{names[0]}")  # what is open stays, whatever its age
    os.utime(small.path(f"{base}/{names[0]}"), ns=(1, 1))
    small.open(f"{base}/{names[1]}").close()
    assert names[0] in copies(small) and len(copies(small)) == 3
    held.close()
    tiny = ShardCache(cache.folder, 1)
    tiny.open(f"{base}/{names[2]}").close()
    tiny.path(f"{base}/{names[2]}").unlink()
    with tiny.open(f"{base}/{names[2]}") as file:
        assert len(file.read()) == sizes[2] and copies(tiny) == [names[2]]


def fetch_all(cache: ShardCache, base: str, digests: list[str], queue: Any) -> None:
    """Fetch every shard many times through a cache that holds two of them, from another process."""
    wrong = 0
    for _ in range(6):
        for number, digest in enumerate(digests):
            with cache.open(f"{base}/shard-00000{number}.tar") as file:
                wrong += hashlib.sha256(file.read()).hexdigest() != digest
    queue.put(wrong)


def test_processes_share_a_cache_that_is_too_small(base: str, cache: ShardCache, served: Path) -> None:
    shards = sorted(served.glob("*.tar"))
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in shards]
    small = ShardCache(cache.folder, 2 * max(path.stat().st_size for path in shards))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=fetch_all, args=(small, base, digests, queue)) for _ in range(3)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=60) for _ in processes] == [0, 0, 0]
    for process in processes:
        process.join()
    assert len([name for name in copies(small) if name.endswith(".tar")]) <= 3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_reads_the_same_packs(
    base: str, cache: ShardCache, served: Path, kit: SimpleNamespace, template: ChatTemplate, num_workers: int
) -> None:
    """With a cache of one shard, so that workers fetch while they load."""
    small = ShardCache(cache.folder, 1, attempts=3, wait_s=0.01)

    def packs(index: ShardIndex, workers: int) -> list[torch.Tensor]:
        mixture = Mixture({"a": (SourceConfig(), index)}, kit.tiling, kit.packing)
        dataset = PackDataset(Plan(mixture, kit.packing, 1, kit.cost, 4), kit.encoder, 1)
        return [batch.pixel_values for batch in PackLoader(dataset, num_steps=2, packs_per_step=4, num_workers=workers)]

    remote = packs(load_or_build_index(f"{base}/{SHARDS}", template, 0, small), num_workers)
    local = packs(build_index(served, template), 0)
    assert all(torch.equal(a, b) for a, b in zip(remote, local, strict=True)) and len(copies(small)) <= 3


def test_what_counts_as_remote(tmp_path: Path) -> None:
    assert [is_remote(text) for text in ("s3://b/x", "http://h/x", "file:///d", "/d", "pipe:cat")] == [
        True, True, False, False, False,
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"shards nope://x/shards\.json cannot be opened: "):
        locate_shards("nope://x/{0..1}.tar", ShardCache(tmp_path, 1))


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("gcs", "gcsfs"), ("az", "adlfs")])
def test_drivers_that_are_not_installed_are_named(
    tmp_path: Path, scheme: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError) as caught:
        locate_shards(f"{scheme}://bucket/{{0..1}}.tar", ShardCache(tmp_path, 1))
    place = f"shards {scheme}://bucket/shards.json cannot be opened"
    assert str(caught.value) == f"{place}: install its driver with `pip install {package}`"


def test_files_that_vanish_while_room_is_made_are_passed_over(
    cache: ShardCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers on a small cache: one lists a file that the other renames before its size is read."""
    folder = cache.folder / "shards" / "base"
    folder.mkdir(parents=True)
    for name in ("gone.tar.partial", "old.tar", "new.tar"):
        (folder / name).write_bytes(b"x" * 10)
    listed = Path.glob

    def list_then_lose(self: Path, pattern: str) -> list[Path]:
        found = list(listed(self, pattern))
        (folder / "gone.tar.partial").unlink()
        return found

    monkeypatch.setattr(Path, "glob", list_then_lose)
    ShardCache(cache.folder, 10)._make_room(folder / "new.tar")
    assert sorted(path.name for path in folder.iterdir()) == ["new.tar"]
