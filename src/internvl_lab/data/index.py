"""Index shards: where each sample lies and how much room it needs, so that training can address any of them.

```
shard-*.tar ── scan_shard (one process a shard) ──> Table ── join ──> ShardIndex ── save ──> .index-<template>.npz
```

One pass over headers, JSON and image headers; pixels are not decoded. The pass finds damaged shards (`ShardError`,
before training, all of them at once) and faulty samples (`ShardIndex.problems`). The sidecar is keyed by the template's
fingerprint; of shards whose name, size or time of change differs from it, only these are scanned again.
Memory: 82 bytes a sample of text with a key of 13 letters, 20 more an image; indexing 200 000 of them raised the peak
of the process by 48 MB.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from internvl_lab.data.columns import Ints, Table, columns_from, concatenate, take
from internvl_lab.data.frames import frame_line_tokens
from internvl_lab.data.locations import ShardSet, locate_shards
from internvl_lab.data.pool import map_in_order, progress_bar
from internvl_lab.data.remote import ShardCache
from internvl_lab.data.scan import KINDS, Problem, scan_shard
from internvl_lab.errors import ShardError
from internvl_lab.text.template import ChatTemplate

logger = logging.getLogger(__name__)

VERSION = 2
"""Layout of the sidecar; another number means: build again."""
_EARLIER = "an earlier shard holds this key"
"""Detail of a `duplicate_key` between shards."""
_NAMED_ERRORS = 5
"""Damaged shards that an error names one by one."""


@dataclass(kw_only=True)
class ShardIndex(Table):
    """Hold the columns of N samples, M images and R rounds; numpy, so that forked workers share the memory."""

    shard_set: ShardSet
    stamps: Ints
    """(shards, 2) int64: size in bytes and mark of the version of each shard, see `ShardSet.stamps`."""
    shard: NDArray[np.int32]
    """(N,) position in `shard_names`."""
    frame_tokens: NDArray[np.int32]
    """(largest number of frames + 1,) int32: text tokens of the lines of frames 2 to T, see `frames`."""
    problems: list[Problem] = field(default_factory=list)
    """(shard, key, reason, detail) of samples that are not in the columns."""

    @property
    def folder(self) -> str:
        """Return the folder, or the beginning of the URLs."""
        return self.shard_set.base

    @property
    def shard_names(self) -> tuple[str, ...]:
        """Return the names of the shards."""
        return self.shard_set.names

    @property
    def shards(self) -> list[Path]:
        """Return the paths of local shards."""
        return [Path(self.folder, name) for name in self.shard_names]

    @cached_property
    def fingerprint(self) -> str:
        """Hash the content (names and sizes of shards, all columns), not the place: 16 hexadecimal digits."""
        digest = hashlib.sha256("\0".join(self.shard_names).encode())
        for array in (self.stamps[:, 0], self.shard, *self.arrays().values()):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def read_json(self, row: int) -> bytes:
        """Read the JSON member of sample `row`."""
        return read_member(self, int(self.shard[row]), int(self.json_offset[row]), int(self.json_size[row]))

    def read_image(self, row: int, image: int) -> bytes:
        """Read one image file of sample `row`; `image` is a row of the image columns."""
        return read_member(self, int(self.shard[row]), int(self.image_offset[image]), int(self.image_size[image]))

    def read_images(self, row: int) -> list[bytes]:
        """Read the image files of sample `row`, in placeholder order."""
        return [self.read_image(row, image) for image in self.images_of(row)]

    def save(self, path: Path) -> None:
        """Write the index as .npz, atomically."""
        beside = self.shard_set.cache is None and path.parent.resolve() == Path(self.folder).resolve()
        base = self.folder if self.shard_set.cache else str(Path(self.folder).resolve())
        temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {
            "version": np.array(VERSION),
            "folder": np.array("" if beside else base),
            "shard_names": np.array(self.shard_names),
            "stamps": self.stamps,
            "shard": self.shard,
            "frame_tokens": self.frame_tokens,
            "problems": np.array(self.problems, dtype=np.str_).reshape(len(self.problems), 4),
            **self.arrays(),
        }
        try:
            with temporary.open("wb") as file:
                np.savez(file, **arrays)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> ShardIndex:
        """Read an index; nothing in it is executed (`allow_pickle=False`). Remote shards need `shard_set` set anew.

        Raises:
            ShardError: not an index of this version.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                if int(data["version"]) != VERSION:
                    raise ShardError(f"index {path} has another version than {VERSION}")
                names = tuple(str(name) for name in data["shard_names"])
                return cls(
                    shard_set=ShardSet(str(data["folder"]) or str(path.parent), names),
                    problems=[(str(s), str(k), str(r), str(d)) for s, k, r, d in data["problems"]],
                    **{name: data[name] for name in ("stamps", "shard", "frame_tokens")},
                    **columns_from(data),
                )
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise ShardError(f"index {path} cannot be read: {error}") from error


def build_index(
    shards: str | Path, template: ChatTemplate, num_workers: int = 0, cache: ShardCache | None = None
) -> ShardIndex:
    """Scan all shards of a source, in order.

    Args:
        shards: a folder, numbered files or URLs; see `locations`.
        template: counts the text tokens.
        num_workers: processes; 0 or 1 = this one.
        cache: for remote shards; None = the default one.
    Raises:
        ShardError: nothing is there, or a shard is missing or damaged; the message names it.
    """
    return _build(locate_shards(shards, cache), template, num_workers, None)


def load_or_build_index(
    shards: str | Path, template: ChatTemplate, num_workers: int = 0, cache: ShardCache | None = None
) -> ShardIndex:
    """Return the index beside the shards, scanning the shards that it lacks or that have changed.

    Raises:
        ShardError: as in `build_index`.
    """
    shard_set = locate_shards(shards, cache)
    path = shard_set.sidecar_folder / f".index-{template.fingerprint}.npz"
    known: ShardIndex | None = None
    if path.exists():
        try:
            known = ShardIndex.load(path)
            if known.shard_names == shard_set.names and np.array_equal(known.stamps, shard_set.stamps()):
                known.shard_set = shard_set
                return known
            logger.info("the shards in %s have changed: indexing again what is new", shards)
        except ShardError as error:
            logger.warning("%s: indexing again", error)
    index = _build(shard_set, template, num_workers, known)
    try:
        index.save(path)
    except OSError as error:
        logger.warning("the index of %s cannot be kept (%s); it will be built again next time", shards, error)
    return index


def read_member(index: ShardIndex, shard: int, offset: int, size: int) -> bytes:
    """Read one member of a shard.

    Args:
        shard: position in `index.shard_names`.
        offset, size: bytes.
    Raises:
        ShardError: the shard is missing or shorter than indexed.
    """
    return index.shard_set.read(shard, offset, size, index.stamps[shard])


Scanned = tuple[Table, list[Problem]]


def _build(shard_set: ShardSet, template: ChatTemplate, num_workers: int, known: ShardIndex | None) -> ShardIndex:
    """Scan what is not known, and join."""
    stamps = shard_set.stamps()
    parts = {} if known is None else _unchanged(known, shard_set, stamps)
    todo = [shard for shard in range(len(shard_set.names)) if shard not in parts]
    scan = partial(_scan, shard_set=shard_set, stamps=stamps, template=template)
    results = map_in_order(scan, todo, min(num_workers, len(todo)))
    errors: list[ShardError] = []
    with progress_bar() as bar:
        for shard, result in zip(todo, bar.track(results, len(todo), description="indexing"), strict=True):
            if isinstance(result, ShardError):
                errors.append(result)
            else:
                parts[shard] = result
    if errors:
        raise errors[0] if len(errors) == 1 else _summary(errors)
    index = join_scans(shard_set, stamps, [parts[shard] for shard in range(len(shard_set.names))], template)
    logger.info(
        "indexed %s: %d samples in %d shards (%d scanned), %d problems",
        shard_set.base, len(index), len(shard_set.names), len(todo), len(index.problems),
    )  # fmt: skip
    return index


def _scan(shard: int, shard_set: ShardSet, stamps: Ints, template: ChatTemplate) -> Scanned | ShardError:
    """Scan one shard; a damaged one gives its error, so that all of them can be named."""
    try:
        with shard_set.open(shard, int(stamps[shard, 0])) as file:
            scan = scan_shard(Path(str(file.name)), template, shard_set.names[shard])
    except ShardError as error:
        return error if shard_set.cache is None else ShardError(f"{shard_set.location(shard)}: {error}")
    return scan.table(), scan.problems


def _summary(errors: Sequence[ShardError]) -> ShardError:
    """Name several damaged shards in one error."""
    named = "; ".join(map(str, errors[:_NAMED_ERRORS])) + ("; ..." if len(errors) > _NAMED_ERRORS else "")
    return ShardError(f"{len(errors)} shards are damaged: {named}")


def _unchanged(known: ShardIndex, shard_set: ShardSet, stamps: Ints) -> dict[int, Scanned]:
    """Return what an older index knows of the shards that are still the same, by their new positions."""
    if any(problem[3] == _EARLIER for problem in known.problems):  # a lost row may come back
        return {}
    old = {name: shard for shard, name in enumerate(known.shard_names)}
    bounds = np.searchsorted(known.shard, np.arange(len(known.shard_names) + 1))
    parts: dict[int, Scanned] = {}
    for shard, name in enumerate(shard_set.names):
        position = old.get(name)
        if position is not None and np.array_equal(known.stamps[position], stamps[shard]):
            rows = np.arange(bounds[position], bounds[position + 1])
            parts[shard] = take(known, rows), [problem for problem in known.problems if problem[0] == name]
    return parts


def join_scans(shard_set: ShardSet, stamps: Ints, parts: Sequence[Scanned], template: ChatTemplate) -> ShardIndex:
    """Join what was found in all shards; a key seen in an earlier shard is a problem of the later one.

    Args:
        stamps: (shards, 2), see `ShardIndex`.
        parts: table and problems of each shard, in order.
    """
    table = concatenate([part for part, _ in parts])
    shard = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part, _ in parts])
    problems = [problem for _, found in parts for problem in found]
    again = _seen_before(table)
    if len(again):
        problems += [(shard_set.names[shard[row]], table.key[row], "duplicate_key", _EARLIER) for row in again]
        kept = np.setdiff1d(np.arange(len(table)), again)
        table, shard = take(table, kept), shard[kept]
    is_video = table.kind == KINDS.index("video")
    longest = int(np.diff(table.image_start)[is_video].max(initial=0))
    return ShardIndex(
        shard_set=shard_set,
        stamps=stamps,
        shard=shard,
        frame_tokens=frame_line_tokens(template, longest),
        problems=problems,
        **columns_from(table.arrays()),
    )


def _seen_before(table: Table) -> Ints:
    """Return the rows (n,) whose key an earlier row has; hashes first, because a set of keys needs 100 bytes a key."""
    keys = table.key
    hashes = np.fromiter((hash(keys.encoded(row)) for row in range(len(keys))), np.int64, len(keys))
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    seen: set[bytes] = set()
    again = []
    for row in np.flatnonzero(counts[inverse] > 1).tolist():
        key = keys.encoded(row)
        if key in seen:
            again.append(row)
        seen.add(key)
    return np.array(again, np.int64)
