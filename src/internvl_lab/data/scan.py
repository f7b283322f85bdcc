"""Scan one shard for the index: group its members into samples, parse the JSON, measure texts and images.

```
walk_tar ──> members ── group_members ──> samples ── parse, count tokens, read image headers ──> ShardScan ──> Table
```

Damage to the file is a `ShardError`; a fault of one sample becomes a line in `problems`.
"""

from __future__ import annotations

import os
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from internvl_lab.data.columns import Table, TextColumn, starts
from internvl_lab.data.long_samples import RoundSizes, measure_rounds
from internvl_lab.data.records import Record, parse_line, parse_record
from internvl_lab.data.shards import IMAGE_SUFFIXES
from internvl_lab.data.tar_walk import Member, walk_tar
from internvl_lab.data.transforms import read_image_size
from internvl_lab.errors import SampleError, ShardError
from internvl_lab.text.template import ChatTemplate

KINDS = ("text", "image", "multi_image", "video")
"""Names of the values of `ShardIndex.kind`."""
HEADER_BYTES = 64 * 1024
"""Beginning of an image that is read first; nearly every header lies inside."""
_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
"""Splits KEY.SUFFIX at the first dot of the file name. Source: `webdataset.tariterators.base_plus_ext`."""
_NUMBERED = re.compile(rf"^(?:(\d+)\.)?(?:{'|'.join(IMAGE_SUFFIXES)})$", re.IGNORECASE)

Problem = tuple[str, str, str, str]
"""(shard, key, reason, detail)."""
Extent = tuple[int, int, int, int]
"""(offset, size, width, height) of an image."""


@dataclass
class ShardScan:
    """Collect the rows of one shard; lists run parallel, one entry a usable sample."""

    name: str
    keys: list[str] = field(default_factory=list)
    json_extents: list[tuple[int, int]] = field(default_factory=list)
    """(offset, size)."""
    json_crc: list[int] = field(default_factory=list)
    rounds: list[RoundSizes] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    images: list[list[Extent]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def text_tokens(self) -> list[int]:
        """Return the text tokens of each sample."""
        return [sizes.text_tokens for sizes in self.rounds]

    def table(self) -> Table:
        """Return the rows as columns, which are small enough to send to another process."""
        extents = np.array([e for images in self.images for e in images], np.int64).reshape(-1, 4)
        located = np.array(self.json_extents, np.int64).reshape(-1, 2)
        return Table(
            key=TextColumn.of(self.keys),
            json_offset=located[:, 0].copy(),
            json_size=located[:, 1].astype(np.int32),
            json_crc=np.array(self.json_crc, np.uint32),
            text_tokens=np.array(self.text_tokens, np.int32),
            text_floor=np.array([sizes.text_floor for sizes in self.rounds], np.int32),
            kind=np.array(self.kinds, np.int8),
            task=TextColumn.of(self.tasks),
            image_start=starts(np.array([len(images) for images in self.images], np.int64)),
            image_offset=extents[:, 0].copy(),
            image_size=extents[:, 1].copy(),
            width=extents[:, 2].astype(np.int32),
            height=extents[:, 3].astype(np.int32),
            round_start=starts(np.array([len(sizes.tokens) for sizes in self.rounds], np.int64)),
            round_tokens=np.array([n for sizes in self.rounds for n in sizes.tokens], np.int32),
            lead_tokens=np.array([n for sizes in self.rounds for n in sizes.lead_tokens], np.int32),
            round_images=np.array([n for sizes in self.rounds for n in sizes.images], np.int32),
        )


def scan_shard(path: Path, template: ChatTemplate, name: str | None = None) -> ShardScan:
    """Read one shard's headers, JSON and image headers.

    Args:
        name: what problems call the shard; None = the file's name.
    Raises:
        ShardError: the tar is damaged or holds no sample at all.
    """
    members = walk_tar(path)
    with path.open("rb") as file:
        scan = scan_members(members, file.fileno(), template, name or path.name)
    if not scan.keys and not scan.problems:
        raise ShardError(f"shard {path} holds no sample")
    return scan


def scan_members(members: Sequence[Member], fd: int, template: ChatTemplate, name: str) -> ShardScan:
    """Read JSON and image headers of members that lie in an open file.

    Args:
        fd: the file that the members' offsets belong to.
        name: what problems call the shard.
    """
    scan = ShardScan(name)
    seen: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `read_image_size` judges our own limit
        for key, parts in group_members(members, scan):
            try:
                if key in seen:
                    raise SampleError(key, "duplicate_key", "the shard holds this key before")
                _scan_sample(scan, key, parts, fd, template)
            except SampleError as error:
                scan.problems.append((scan.name, key, error.reason, error.detail))
            seen.add(key)
    return scan


def group_members(members: Sequence[Member], scan: ShardScan) -> Iterator[tuple[str, dict[str, Member]]]:
    """Yield (key, {suffix: member}) for each run of members with the same key, as webdataset groups them.

    Names that leave the folder are listed as problem `path_traversal` and left out; a suffix that comes twice in a run
    is a `duplicate_key`, and the first wins.
    """
    current, parts = "", dict[str, Member]()
    for member in members:
        match = _NAME.match(member.name)
        if match is None:
            continue
        key, suffix = match.groups()
        pure = PurePosixPath(member.name)
        if pure.is_absolute() or ".." in pure.parts:
            scan.problems.append((scan.name, key, "path_traversal", f"member {member.name!r} leaves the folder"))
            continue
        if key != current and parts:
            yield current, parts
            parts = {}
        current = key
        if suffix in parts:
            scan.problems.append((scan.name, key, "duplicate_key", f"member {member.name!r} comes twice"))
        else:
            parts[suffix] = member
    if parts:
        yield current, parts


def _scan_sample(scan: ShardScan, key: str, parts: dict[str, Member], fd: int, template: ChatTemplate) -> None:
    """Check one sample and append its row; all values are computed first, so that a fault leaves no half row."""
    if "json" not in parts:
        raise SampleError(key, "missing_member", "no .json member")
    located = parts["json"]
    payload = read_extent(fd, located.offset, located.size, scan.name)
    raw = parse_line(payload, key)
    images = image_members(key, parts, raw)
    record = parse_record(raw, key, len(images))
    sizes = measure_rounds(record, template)
    extents = [_measure(member, fd, key, scan.name) for member in images]
    scan.keys.append(key)
    scan.json_extents.append((located.offset, located.size))
    scan.json_crc.append(zlib.crc32(payload))
    scan.rounds.append(sizes)
    scan.kinds.append(_kind(record))
    scan.tasks.append(str(raw.get("task") or ""))
    scan.images.append(extents)


def read_extent(fd: int, offset: int, size: int, name: str) -> bytes:
    """Read `size` bytes at `offset`.

    Raises:
        ShardError: the file is shorter than that (`name` says which).
    """
    data = os.pread(fd, size, offset)
    if len(data) != size:
        raise ShardError(f"shard {name} is shorter than its index says: {len(data)} of {size} bytes at {offset}")
    return data


def image_members(key: str, parts: dict[str, Member], raw: dict[str, Any]) -> list[Member]:
    """Return the image members in placeholder order.

    The order is the record's own where every image it names is a member of this sample; else that of the numbers in
    KEY.<n>.<ext> (KEY.<ext> counts as number 0).

    Raises:
        SampleError: `missing_member` for a gap in the numbers.
    """
    by_name = {member.name: member for suffix, member in parts.items() if suffix != "json"}
    listed = raw.get("image") or raw.get("video") or ()
    names = [listed] if isinstance(listed, str) else listed
    if names and isinstance(names, list) and all(isinstance(name, str) and name in by_name for name in names):
        return [by_name[name] for name in names]
    numbered: dict[int, Member] = {}
    for suffix, member in parts.items():
        match = _NUMBERED.match(suffix)
        if match is None:
            continue
        if numbered.setdefault(int(match.group(1) or 0), member) is not member:
            raise SampleError(key, "duplicate_key", f"two images have the number {match.group(1) or 0}")
    if sorted(numbered) != list(range(len(numbered))):
        raise SampleError(key, "missing_member", f"image numbers are {sorted(numbered)}")
    return [numbered[number] for number in range(len(numbered))]


def _measure(member: Member, fd: int, key: str, shard: str) -> Extent:
    """Read an image's size from its first bytes, and from all of it only where these do not suffice."""
    head = read_extent(fd, member.offset, min(member.size, HEADER_BYTES), shard)
    try:
        width, height = read_image_size(head, key)
    except SampleError as error:
        if error.reason != "corrupt_image" or member.size <= HEADER_BYTES:
            raise
        width, height = read_image_size(read_extent(fd, member.offset, member.size, shard), key)
    if width < 1 or height < 1:
        raise SampleError(key, "corrupt_image", f"impossible size {width}x{height}")
    return member.offset, member.size, width, height


def _kind(record: Record) -> int:
    """Classify a record, as a position in `KINDS`."""
    return KINDS.index("video") if record.is_video else min(len(record.images), 2)
