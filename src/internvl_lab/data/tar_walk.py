"""Walk the headers of a tar file, strictly: what is damaged raises, nothing is skipped in silence.

webdataset ends a truncated or corrupt shard without an error and loses the rest (measured, research/data_pipeline
section 5), so the index reads the 512-byte headers itself: name, size, checksum, and the two zero blocks of the end.
Long names (GNU and pax) are understood; members other than plain files are passed over, as webdataset does.
Source of the layout: POSIX.1-2017, pax interchange format, `ustar`.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

from internvl_lab.errors import ShardError

BLOCK = 512
"""Bytes of a header and unit of padding."""
ZERO_BLOCK = bytes(BLOCK)
FILE_TYPES = (b"0", b"\0", b"7")
"""Type flags of plain files."""


@dataclass(frozen=True)
class Member:
    """Locate one file inside a tar: its bytes are `[offset, offset + size)`."""

    name: str
    offset: int
    size: int


def walk_tar(path: Path) -> list[Member]:
    """List the plain files of a tar in order, checking every header.

    Raises:
        ShardError: missing, empty, truncated, without end marker, or with a header that fails its checksum.
    """
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise ShardError(f"shard {path} is empty (0 bytes)")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _walk(data, path)
    except OSError as error:
        raise ShardError(f"shard {path} cannot be read: {error}") from error


def _walk(data: mmap.mmap, path: Path) -> list[Member]:
    """Step from header to header until the end marker."""
    members: list[Member] = []
    position, end = 0, len(data)
    override: dict[str, str] = {}
    while True:
        header = data[position : position + BLOCK]
        if len(header) < BLOCK:
            raise ShardError(f"shard {path} has no end marker: truncated at byte {end} after {len(members)} files")
        if header == ZERO_BLOCK:
            if data[position + BLOCK : position + 2 * BLOCK] != ZERO_BLOCK:
                raise ShardError(f"shard {path} has half an end marker at byte {position}: truncated or corrupt")
            return members
        _check_header(header, position, path)
        start, size = position + BLOCK, _number(header[124:136], position, path)
        kind = header[156:157]
        if kind in FILE_TYPES:
            size = int(override.get("size", size))
        if start + size > end:
            raise ShardError(f"shard {path} is truncated: the file at byte {position} ends after byte {end}")
        if kind in (b"L", b"x"):
            override.update(_read_override(kind, data[start : start + size], position, path))
        elif kind != b"g":
            if kind in FILE_TYPES:
                members.append(Member(override.get("path") or _header_name(header), start, size))
            override = {}
        position = start + -(-size // BLOCK) * BLOCK


def _check_header(header: bytes, position: int, path: Path) -> None:
    """Compare the checksum: the sum of all bytes, its own field counted as spaces."""
    expected = _number(header[148:156], position, path)
    if sum(header) - sum(header[148:156]) + 8 * 32 != expected:
        raise ShardError(f"shard {path} has a corrupt header at byte {position} (checksum)")


def _number(field: bytes, position: int, path: Path) -> int:
    """Read an octal field, or GNU's base-256 for large sizes."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError as error:
        raise ShardError(f"shard {path} has a corrupt header at byte {position} (not a number)") from error


def _header_name(header: bytes) -> str:
    """Join the ustar prefix and name."""
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "surrogateescape")


def _read_override(kind: bytes, payload: bytes, position: int, path: Path) -> dict[str, str]:
    """Read the name (GNU `L`) or the path and size (pax `x`) that belong to the next member."""
    if kind == b"L":
        return {"path": payload.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    fields = {}
    while payload:
        length, _, rest = payload.partition(b" ")
        if not length.isdigit() or not len(length) < int(length) <= len(payload):
            raise ShardError(f"shard {path} has a corrupt pax header at byte {position}")
        record = rest[: int(length) - len(length) - 2]
        name, _, value = record.partition(b"=")
        if name in (b"path", b"size"):
            fields[name.decode()] = value.decode("utf-8", "surrogateescape")
        payload = payload[int(length) :]
    return fields
