"""Find the shards that `data.mixtures.*.*.shards` means: a folder, numbered files, or URLs.

```
/data/mine                         every *.tar of the folder; none may be missing
/data/mine/{000000..000009}.tar    webdataset's braces
https://host/mine/{0..9}.tar       the same elsewhere, through the cache (`remote`)
s3://bucket/mine                   the shards that its manifest shards.json lists
pipe:COMMAND                       what a shell command writes, as a stream only (`stream`)
```

A set of shards is addressed by (base, names), so that moving all of them changes no name and no fingerprint.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from internvl_lab.config import DataConfig
from internvl_lab.config.data import COMMAND
from internvl_lab.data.columns import Ints
from internvl_lab.data.remote import ShardCache, is_remote
from internvl_lab.data.scan import read_extent
from internvl_lab.data.shards import MANIFEST
from internvl_lab.errors import ConfigError, ShardError

MAX_OPEN_SHARDS = 64
"""Shard files a process keeps open."""
ASKED_AT_ONCE = 16
"""Remote shards whose size is asked for at the same time."""

_NUMBERED = re.compile(r"^(.*?)(\d{5,6})\.tar$")
"""Names of a numbered sequence, such as NAME-000000.tar; four digits would be years."""


@dataclass(frozen=True)
class ShardSet:
    """Name the shards of one source, in order."""

    base: str
    """Folder, or beginning of the URLs."""
    names: tuple[str, ...]
    cache: ShardCache | None = None
    """Holds copies of remote shards; None = the shards are here."""
    checksums: Mapping[str, str] = field(default_factory=dict)
    """Name to SHA-256, where a manifest gives it; checked when a remote shard is fetched."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Name to bytes, where the manifest of remote shards gives it."""

    def location(self, shard: int) -> str:
        """Return the path or URL of a shard."""
        return f"{self.base}/{self.names[shard]}"

    def open(self, shard: int, size: int = -1) -> BinaryIO:
        """Open a shard; a remote one stays in the cache while it is open.

        Args:
            size: expected bytes of a remote shard; -1 = unknown.
        Raises:
            ShardError: it is missing or cannot be fetched.
        """
        if self.cache is not None:
            return self.cache.open(self.location(shard), size, self.checksums.get(self.names[shard]))
        try:
            return Path(self.location(shard)).open("rb", buffering=0)
        except OSError as error:
            raise ShardError(f"shard {self.location(shard)} cannot be read: {error}") from error

    def read(self, shard: int, offset: int, size: int, stamp: Ints) -> bytes:
        """Read a part of a shard.

        Args:
            offset, size: bytes.
            stamp: (2,) size of the shard and its time of change, as indexed.
        Raises:
            ShardError: the shard is missing or shorter than indexed.
        """
        location = self.location(shard)
        if self.cache is not None:  # kept open, it could not be evicted
            with self.open(shard, int(stamp[0])) as file:
                return read_extent(file.fileno(), offset, size, location)
        try:
            return read_extent(_OPEN.get(Path(location), int(stamp[1])).fileno(), offset, size, location)
        except OSError as error:
            raise ShardError(f"shard {location} cannot be read: {error}") from error

    def stamps(self) -> Ints:
        """Return (shards, 2) int64: size in bytes and what changes with the content (of local shards: a time in ns)."""
        if self.cache is None:
            stats = [os.stat(self.location(shard)) for shard in range(len(self.names))]
            return np.array([(stat.st_size, stat.st_mtime_ns) for stat in stats], np.int64).reshape(-1, 2)
        with ThreadPoolExecutor(ASKED_AT_ONCE) as threads:
            return np.array(list(threads.map(self._remote_stamp, range(len(self.names)))), np.int64).reshape(-1, 2)

    @property
    def sidecar_folder(self) -> Path:
        """Return the folder of the index: beside local shards, in the cache for remote ones."""
        if self.cache is None:
            return Path(self.base)
        content = json.dumps([self.base, self.names]).encode()
        return self.cache.folder / "indexes" / f"{zlib.crc32(content):08x}"

    def _remote_stamp(self, shard: int) -> tuple[int, int]:
        """Return size and version of a remote shard, from the manifest where it says."""
        name = self.names[shard]
        if name in self.sizes and name in self.checksums:
            return self.sizes[name], zlib.crc32(self.checksums[name].encode())
        assert self.cache is not None
        size, mark = self.cache.info(self.location(shard))
        return size, zlib.crc32(mark.encode())


def locate_shards(shards: str | Path, cache: ShardCache | None = None) -> ShardSet:
    """Find the shards of a source.

    Args:
        shards: see the module's table.
        cache: for remote shards; None = as `DataConfig` has it by default.
    Raises:
        ShardError: nothing is there, or a shard is missing.
        ConfigError: a URL that means nothing here.
    """
    text = str(shards).removeprefix("file://")
    if is_remote(text):
        return _locate_remote(text, cache or ShardCache.from_settings(DataConfig()))
    if text.startswith(COMMAND):
        raise ConfigError(f"shards {text}: what a command writes can only be streamed; an index needs a folder or URLs")
    if not text.endswith(".tar") or Path(text).is_dir():
        return ShardSet(str(Path(text)), tuple(path.name for path in find_shards(Path(text))))
    base, names = _expand(text)
    missing = [name for name in names if not Path(base, name).is_file()]
    if missing:
        raise ShardError(f"{len(missing)} of the {len(names)} shards {text} do not exist: {', '.join(missing[:5])}")
    return ShardSet(base, names)


def locate_streams(shards: str, cache: ShardCache | None = None) -> tuple[str, ...]:
    """Name the tars of a streamed source: paths, URLs, or commands with `pipe:` before each.

    A command comes from here alone, that is from the user's configuration; what data or a manifest names is never run.

    Args:
        shards, cache: as in `locate_shards`; URLs that end neither in `.tar` nor in a query name a folder.
    Raises:
        ShardError, ConfigError: as `locate_shards`.
    """
    if shards.startswith(COMMAND) or (is_remote(shards) and (shards.endswith(".tar") or "?" in shards)):
        from webdataset.shardlists import expand_urls  # here, because webdataset takes a second to import

        return tuple(expand_urls(shards))
    located = locate_shards(shards, cache)
    return tuple(located.location(shard) for shard in range(len(located.names)))


def find_shards(folder: Path) -> list[Path]:
    """List the shards of a folder by name.

    Raises:
        ShardError: no such folder, no `*.tar` in it, or a shard is missing that its manifest `shards.json` lists; where
            there is no manifest (shards of other programs), a gap in the numbers NAME-000000.tar.
    """
    if not folder.is_dir():
        raise ShardError(f"folder of shards {folder} does not exist")
    paths = sorted(path for path in folder.glob("*.tar") if not path.name.startswith("."))
    if not paths:
        packed = " (compressed tars cannot be addressed: unpack them)" if any(folder.glob("*.tar.*")) else ""
        raise ShardError(f"folder {folder} holds no shards (*.tar){packed}")
    _refuse_missing(folder, {path.name for path in paths})
    return paths


def _locate_remote(text: str, cache: ShardCache) -> ShardSet:
    """Find remote shards: those that the braces or the manifest name."""
    base, names = _expand(text) if text.endswith(".tar") else (text.rstrip("/"), ())
    several = base.endswith(":/")  # hosts or buckets; no manifest describes them together
    manifest = None if several else cache.read_manifest(f"{base}/{MANIFEST}")
    if not names:
        names = tuple(_listed(manifest, f"{base}/{MANIFEST}")) if manifest else ()
    if not names:
        raise ShardError(f"{base} has no {MANIFEST} that lists shards: name them, as in {base}/{{000000..000009}}.tar")
    manifest = manifest or {}
    sums, sizes = manifest.get("sha256", {}), manifest.get("bytes", {})
    return ShardSet(base, names, cache, sums, sizes)


def _expand(text: str) -> tuple[str, tuple[str, ...]]:
    """Expand webdataset's braces to (what all begin with up to a slash, the rests)."""
    from webdataset.shardlists import expand_urls  # here, because webdataset takes a second to import

    urls = expand_urls(text)
    folders = [url.split("/")[:-1] for url in urls]
    shared = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))]
    return "/".join(shared) or ".", tuple("/".join(url.split("/")[len(shared) :]) for url in urls)


def _listed(manifest: Mapping[str, Any], place: object) -> list[str]:
    """Return the names of the shards that a manifest lists."""
    shards = manifest.get("shards")
    if not isinstance(shards, dict):
        raise ShardError(f"manifest {place} cannot be read: it has no object `shards`")
    return list(shards)


def _refuse_missing(folder: Path, present: set[str]) -> None:
    """Stop where a shard is gone, because training on the rest would look like training on all of it."""
    path = folder / MANIFEST
    if path.exists():
        try:
            manifest = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ShardError(f"manifest {path} cannot be read: {error!r}") from error
        missing = set(_listed(manifest if isinstance(manifest, dict) else {}, path)) - present
        reason = f"{MANIFEST} lists it"
    else:
        missing, reason = _gaps(present), "the numbers of the others leave a gap"
    if missing:
        names = ", ".join(sorted(missing)[:5]) + (", ..." if len(missing) > 5 else "")
        raise ShardError(f"folder {folder} lacks {len(missing)} of its shards: {names} ({reason}); restore it")


def _gaps(present: set[str]) -> set[str]:
    """Return the names that numbered sequences lack between their first and their last number."""
    sequences: dict[tuple[str, int], set[int]] = {}
    for match in filter(None, map(_NUMBERED.match, present)):
        sequences.setdefault((match[1], len(match[2])), set()).add(int(match[2]))
    return {
        f"{prefix}{number:0{width}d}.tar"
        for (prefix, width), numbers in sequences.items()
        for number in set(range(min(numbers), max(numbers))) - numbers
    }


class OpenShards:
    """Keep the last used shards open; a shard with a new stamp is opened again."""

    def __init__(self) -> None:
        self._files: OrderedDict[tuple[Path, int], BinaryIO] = OrderedDict()

    def get(self, path: Path, stamp: int) -> BinaryIO:
        """Return the shard's file; only `pread` is used on it, so forked processes may share it."""
        file = self._files.pop((path, stamp), None) or path.open("rb", buffering=0)
        self._files[path, stamp] = file
        if len(self._files) > MAX_OPEN_SHARDS:
            self._files.popitem(last=False)[1].close()
        return file


_OPEN = OpenShards()
