"""Read the records of a chunk, without losing those that cannot be read.

Chunk ── read_items ──> Item(key, bytes as they stand) ── to_record ──> CurationRecord | SampleError
                                └── read_images ──> file bytes | SampleError
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from internvl_lab.curation.inputs import Chunk, Source
from internvl_lab.curation.verdicts import CurationRecord
from internvl_lab.data.records import parse_line, parse_record
from internvl_lab.data.scan import ShardScan, group_members, image_members, read_extent
from internvl_lab.data.tar_walk import Member, walk_tar
from internvl_lab.errors import SampleError


@dataclass(frozen=True)
class Item:
    """Hold one record as it lies in the input."""

    key: str
    """SOURCE:LINE of a JSONL file, SOURCE:KEY of shards."""
    source: Source
    payload: bytes
    """The JSON text, without the newline."""
    shard: Path | None = None
    parts: tuple[tuple[str, Member], ...] = ()
    """(suffix, member) of the sample, for shards."""

    @cached_property
    def raw(self) -> dict[str, Any] | SampleError:
        """The JSON object, or why there is none."""
        if self.shard is not None and not self.payload:
            return SampleError(self.key, "missing_member", "no .json member")
        try:
            return parse_line(self.payload, self.key)
        except SampleError as error:
            return error

    @cached_property
    def members(self) -> list[Member] | SampleError:
        """The image members in placeholder order; for shards."""
        raw = self.raw
        if isinstance(raw, SampleError):
            return raw
        try:
            return image_members(self.key, dict(self.parts), raw)
        except SampleError as error:
            return error

    @property
    def sample_key(self) -> str:
        """The key without its source: a line number, or the sample's key in its shard."""
        return self.key.removeprefix(f"{self.source.name}:")


def read_items(chunk: Chunk) -> Iterator[Item]:
    """Yield every record of a chunk, sound or not; blank lines are none.

    Raises:
        ShardError: the shard is damaged.
    """
    return _read_shard(chunk) if chunk.path.suffix == ".tar" else _read_lines(chunk)


def to_record(item: Item) -> CurationRecord | SampleError:
    """Validate one record as training will, and turn it into what rules and scorers see.

    Returns:
        The record with its texts as they stand, or the first fault (reasons of `parse_record`).
    """
    raw, names = item.raw, image_names(item)
    if isinstance(raw, SampleError):
        return raw
    if isinstance(names, SampleError):
        return names
    is_path = isinstance(raw.get("video"), str) and bool(raw["video"])
    num_images = len(names) if item.shard is not None else 1 if is_path else None
    try:
        parse_record(raw, item.key, num_images)
        if b"\\ud" in item.payload.lower():
            dump(raw).encode()
    except SampleError as error:
        return error
    except UnicodeEncodeError as error:
        return SampleError(item.key, "bad_json", f"half a character: {error.reason}")
    turns = tuple((turn["from"], turn["value"]) for turn in raw["conversations"])
    return CurationRecord(item.key, item.source.name, raw, turns, names, bool(names) or is_path)


def loose_turns(item: Item) -> tuple[tuple[str, str], ...]:
    """Return what can be read of a conversation, so that a faulty record is measured by the other rules as well."""
    raw = item.raw
    turns = [] if isinstance(raw, SampleError) else raw.get("conversations")
    pairs = [(turn.get("from"), turn.get("value")) for turn in turns or () if isinstance(turn, dict)]
    return tuple((role, text) for role, text in pairs if isinstance(role, str) and isinstance(text, str))


def image_names(item: Item) -> tuple[str, ...] | SampleError:
    """Return the names of a record's images; a video that is one path has none."""
    if item.shard is not None:
        members = item.members
        return members if isinstance(members, SampleError) else tuple(member.name for member in members)
    if isinstance(item.raw, SampleError):
        return item.raw
    listed = item.raw.get("image") or item.raw.get("video") or ()
    if isinstance(listed, str):
        return (listed,) if item.raw.get("image") else ()
    sound = isinstance(listed, (list, tuple)) and all(isinstance(name, str) for name in listed)
    return tuple(listed) if sound else SampleError(item.key, "bad_json", "images must be a path or a list of paths")


def read_images(item: Item) -> list[bytes | SampleError]:
    """Read the files of a record's images; what cannot be read is an error in its place."""
    if item.shard is None:
        names = image_names(item)
        return [] if isinstance(names, SampleError) else [_read_file(item, name) for name in names]
    if isinstance(item.members, SampleError):
        return []
    with item.shard.open("rb") as file:
        return [read_extent(file.fileno(), m.offset, m.size, item.shard.name) for m in item.members]


def _read_file(item: Item, name: str) -> bytes | SampleError:
    """Read an image below the source's root; what lies elsewhere is refused, as in `data.shards`."""
    if "://" in name:
        return SampleError(item.key, "remote_path", f"{name}: download the files and give a local root")
    base = os.path.abspath(item.source.root)
    path = os.path.normpath(os.path.join(base, name))
    if os.path.commonpath([base, path]) != base:
        return SampleError(item.key, "path_outside_root", f"{name} leaves {item.source.root}")
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        return SampleError(item.key, "missing_file", f"{name}: {getattr(error, 'strerror', None) or error}")


def _read_lines(chunk: Chunk) -> Iterator[Item]:
    """Read a byte range of a JSONL file."""
    with chunk.path.open("rb") as file:
        file.seek(chunk.start)
        number = chunk.first_line
        while file.tell() < chunk.stop:
            line = file.readline()
            if line.strip():
                yield Item(f"{chunk.source.name}:{number}", chunk.source, line.rstrip(b"\r\n"))
            number += 1


def _read_shard(chunk: Chunk) -> Iterator[Item]:
    """Read one shard, grouped into samples as the index does it."""
    with chunk.path.open("rb") as file:
        for key, parts in group_members(walk_tar(chunk.path), ShardScan(chunk.path.name)):
            located = parts.get("json")
            payload = read_extent(file.fileno(), located.offset, located.size, chunk.path.name) if located else b""
            yield Item(f"{chunk.source.name}:{key}", chunk.source, payload, chunk.path, tuple(parts.items()))


def dump(value: object) -> str:
    """Write JSON on one line, as every file of this room holds it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
