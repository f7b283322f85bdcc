"""Index shards: where each sample lies and how much room it needs, so that training can address any of them.

```
shard-*.tar ── scan_shard (one process a shard) ──> rows ── join ──> ShardIndex ── save ──> .index-<template>.npz
```

One pass over headers, JSON and image headers; pixels are not decoded. The pass finds damaged shards (`ShardError`,
before training) and faulty samples (`ShardIndex.problems`). The sidecar is keyed by the template's fingerprint and by
the shards' names, sizes and times of change, and is rebuilt when any of them differs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from internvl_lab.data.parent import exit_with_parent
from internvl_lab.data.scan import Problem, ShardScan, read_extent, scan_shard
from internvl_lab.data.shards import MANIFEST
from internvl_lab.errors import ShardError
from internvl_lab.text.template import ChatTemplate

logger = logging.getLogger(__name__)

VERSION = 1
"""Layout of the sidecar; another number means: build again."""
MAX_OPEN_SHARDS = 64
"""Shard files a process keeps open."""
_COLUMNS = (
    "shard", "key", "json_offset", "json_size", "json_crc", "text_tokens", "kind", "task",
    "image_start", "image_offset", "image_size", "width", "height",
)  # fmt: skip

_NUMBERED = re.compile(r"^(.*?)(\d{5,6})\.tar$")
"""Names of a numbered sequence, such as NAME-000000.tar; four digits would be years."""

Ints = NDArray[np.int64]


@dataclass
class ShardIndex:
    """Hold the columns of N samples and M images; numpy, so that forked workers share the memory."""

    folder: Path
    shard_names: list[str]
    stamps: Ints
    """(shards, 2) int64: size in bytes and time of change in ns of each shard."""
    shard: NDArray[np.int32]
    """(N,) position in `shards`."""
    key: NDArray[np.str_]
    """(N,)."""
    json_offset: Ints
    json_size: Ints
    """(N,) int64, bytes."""
    json_crc: NDArray[np.uint32]
    """(N,) CRC-32 of the JSON member, so that the fingerprint covers its content."""
    text_tokens: NDArray[np.int32]
    """(N,) tokens of the encoded conversation without visual tokens; <img> and </img> count."""
    kind: NDArray[np.int8]
    """(N,) position in `scan.KINDS`: 0 text, 1 image, 2 several images, 3 video."""
    task: NDArray[np.str_]
    """(N,) field `task` of the record, "" if it has none."""
    image_start: Ints
    """(N + 1,): images of sample i are rows `image_start[i]` to `image_start[i + 1]` of the image columns."""
    image_offset: Ints
    image_size: Ints
    """(M,) int64, bytes."""
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    """(M,) pixels, EXIF orientation applied."""
    problems: list[Problem] = field(default_factory=list)
    """(shard, key, reason, detail) of samples that are not in the columns."""

    def __len__(self) -> int:
        """Count the usable samples N."""
        return len(self.shard)

    @property
    def shards(self) -> list[Path]:
        """Return the paths of the shards."""
        return [self.folder / name for name in self.shard_names]

    @cached_property
    def fingerprint(self) -> str:
        """Hash the content (names and sizes of shards, all columns), not the place: 16 hexadecimal digits."""
        digest = hashlib.sha256("\0".join(self.shard_names).encode())
        digest.update(np.ascontiguousarray(self.stamps[:, 0]).tobytes())
        for name in _COLUMNS:
            digest.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return digest.hexdigest()[:16]

    def images_of(self, row: int) -> range:
        """Return the rows of the image columns that belong to sample `row`."""
        return range(int(self.image_start[row]), int(self.image_start[row + 1]))

    def read_json(self, row: int) -> bytes:
        """Read the JSON member of sample `row`."""
        return read_member(self, int(self.shard[row]), int(self.json_offset[row]), int(self.json_size[row]))

    def read_images(self, row: int) -> list[bytes]:
        """Read the image files of sample `row`, in placeholder order."""
        shard = int(self.shard[row])
        return [
            read_member(self, shard, int(self.image_offset[i]), int(self.image_size[i])) for i in self.images_of(row)
        ]

    def save(self, path: Path) -> None:
        """Write the index as .npz, atomically."""
        columns = {name: getattr(self, name) for name in _COLUMNS}
        folder = "" if path.parent.resolve() == self.folder.resolve() else str(self.folder.resolve())
        temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            with temporary.open("wb") as file:
                np.savez(
                    file,
                    version=np.array(VERSION),
                    folder=np.array(folder),
                    shard_names=np.array(self.shard_names),
                    stamps=self.stamps,
                    problems=np.array(self.problems, dtype=np.str_).reshape(len(self.problems), 4),
                    **columns,
                )
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> ShardIndex:
        """Read an index; nothing in it is executed (`allow_pickle=False`).

        Raises:
            ShardError: not an index of this version.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                if int(data["version"]) != VERSION:
                    raise ShardError(f"index {path} has another version than {VERSION}")
                problems = [(str(s), str(k), str(r), str(d)) for s, k, r, d in data["problems"]]
                folder = Path(str(data["folder"]) or path.parent)
                columns: dict[str, Any] = {name: data[name] for name in _COLUMNS}
                names = [str(name) for name in data["shard_names"]]
                return cls(folder=folder, shard_names=names, stamps=data["stamps"], problems=problems, **columns)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise ShardError(f"index {path} cannot be read: {error}") from error


def build_index(shards_dir: Path, template: ChatTemplate, num_workers: int = 0) -> ShardIndex:
    """Scan all `*.tar` of a folder, in order of their names.

    Args:
        template: counts the text tokens.
        num_workers: processes; 0 or 1 = this one.
    Raises:
        ShardError: the folder is missing or holds no shard, or a shard is missing or damaged; the message names it.
    """
    paths = find_shards(shards_dir)
    stamps = _stamps(paths)
    scan = partial(scan_shard, template=template)
    if num_workers > 1 and len(paths) > 1:
        with ProcessPoolExecutor(min(num_workers, len(paths)), initializer=exit_with_parent) as pool:
            scans = list(pool.map(scan, paths))
    else:
        scans = [scan(path) for path in paths]
    index = _join(Path(shards_dir), paths, stamps, scans)
    logger.info(
        "indexed %s: %d samples in %d shards, %d problems", shards_dir, len(index), len(paths), len(index.problems)
    )
    return index


def load_or_build_index(shards_dir: Path, template: ChatTemplate, num_workers: int = 0) -> ShardIndex:
    """Return the index beside the shards, building it where it is missing or out of date.

    Raises:
        ShardError: as in `build_index`.
    """
    shards_dir = Path(shards_dir)
    stamps = _stamps(find_shards(shards_dir))
    path = shards_dir / f".index-{template.fingerprint}.npz"
    if path.exists():
        try:
            index = ShardIndex.load(path)
            if index.shard_names == [p.name for p in find_shards(shards_dir)] and np.array_equal(index.stamps, stamps):
                return index
            logger.info("the shards in %s have changed: indexing again", shards_dir)
        except ShardError as error:
            logger.warning("%s: indexing again", error)
    index = build_index(shards_dir, template, num_workers)
    try:
        index.save(path)
    except OSError as error:
        logger.warning("the index of %s cannot be kept (%s); it will be built again next time", shards_dir, error)
    return index


def find_shards(shards_dir: Path) -> list[Path]:
    """List the shards of a folder by name.

    Raises:
        ShardError: no such folder, no `*.tar` in it, or a shard is missing that its manifest `shards.json` lists; where
            there is no manifest (shards of other programs), a gap in the numbers NAME-000000.tar.
    """
    folder = Path(shards_dir)
    if not folder.is_dir():
        raise ShardError(f"folder of shards {folder} does not exist")
    paths = sorted(path for path in folder.glob("*.tar") if not path.name.startswith("."))
    if not paths:
        raise ShardError(f"folder {folder} holds no shards (*.tar)")
    _refuse_missing(folder, {path.name for path in paths})
    return paths


def _refuse_missing(folder: Path, present: set[str]) -> None:
    """Stop where a shard is gone, because training on the rest would look like training on all of it."""
    manifest = folder / MANIFEST
    if manifest.exists():
        try:
            missing = set(json.loads(manifest.read_bytes())["shards"]) - present
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ShardError(f"manifest {manifest} cannot be read: {error!r}") from error
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


def read_member(index: ShardIndex, shard: int, offset: int, size: int) -> bytes:
    """Read one member of a shard.

    Args:
        shard: position in `index.shards`.
        offset, size: bytes.
    Raises:
        ShardError: the shard is missing or shorter than indexed.
    """
    path = index.folder / index.shard_names[shard]
    try:
        return read_extent(_OPEN.get(path, int(index.stamps[shard, 1])).fileno(), offset, size, str(path))
    except OSError as error:
        raise ShardError(f"shard {path} cannot be read: {error}") from error


class _OpenShards:
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


_OPEN = _OpenShards()


def _stamps(paths: Sequence[Path]) -> Ints:
    """Return (shards, 2) int64: size and time of change."""
    return np.array([(stat.st_size, stat.st_mtime_ns) for stat in (path.stat() for path in paths)], dtype=np.int64)


def _join(folder: Path, paths: Sequence[Path], stamps: Ints, scans: Sequence[ShardScan]) -> ShardIndex:
    """Join the rows of all shards; a key seen in an earlier shard is a problem of the later one."""
    problems = [problem for scan in scans for problem in scan.problems]
    seen: set[str] = set()
    rows: list[tuple[int, int]] = []
    for shard, scan in enumerate(scans):
        for row, key in enumerate(scan.keys):
            if key in seen:
                problems.append((scan.name, key, "duplicate_key", "an earlier shard holds this key"))
            else:
                seen.add(key)
                rows.append((shard, row))
    extents = [scans[shard].images[row] for shard, row in rows]
    table = np.array([extent for sample in extents for extent in sample], dtype=np.int64).reshape(-1, 4)
    json_extents = np.array([scans[s].json_extents[r] for s, r in rows], dtype=np.int64).reshape(-1, 2)

    def column(values: Iterable[Any], dtype: Any) -> NDArray[Any]:
        """Make one column of the index: (N,)."""
        return np.array(list(values), dtype=dtype)

    return ShardIndex(
        folder=folder,
        shard_names=[path.name for path in paths],
        stamps=stamps,
        shard=column((s for s, _ in rows), np.int32),
        key=column((scans[s].keys[r] for s, r in rows), np.str_),
        json_offset=json_extents[:, 0].copy(),
        json_size=json_extents[:, 1].copy(),
        json_crc=column((scans[s].json_crc[r] for s, r in rows), np.uint32),
        text_tokens=column((scans[s].text_tokens[r] for s, r in rows), np.int32),
        kind=column((scans[s].kinds[r] for s, r in rows), np.int8),
        task=column((scans[s].tasks[r] for s, r in rows), np.str_),
        image_start=np.concatenate([[0], np.cumsum(column((len(e) for e in extents), np.int64))]).astype(np.int64),
        image_offset=table[:, 0].copy(),
        image_size=table[:, 1].copy(),
        width=table[:, 2].astype(np.int32),
        height=table[:, 3].astype(np.int32),
        problems=problems,
    )
