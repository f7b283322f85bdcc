"""Walk the headers of a tar file, strictly: what is damaged raises, nothing is skipped in silence.

webdataset ends a truncated or corrupt shard without an error and loses the rest (measured, research/data_pipeline
section 5), so the index reads the 512-byte headers itself: name, size, checksum, and the two zero blocks of the end.
`walk_tar` jumps from header to header of a file; `TarCheck` looks at the same bytes of a stream as they pass by.
Long names (GNU and pax) are understood; members other than plain files are passed over, as webdataset does.
Source of the layout: POSIX.1-2017, pax interchange format, `ustar`.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Generator
from contextlib import suppress
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


class TarCheck:
    """Check a tar that comes in pieces of any size; keeps a header at most.

    Args:
        name: what messages call it.
    """

    def __init__(self, name: str) -> None:
        self.name, self.ended = name, False
        self._position = 0
        self._kept = bytearray()
        self._walk = _walk(name, math.inf, lambda member: None)
        self._offset, self._size = next(self._walk)

    def feed(self, data: bytes) -> None:
        """Look at the next bytes.

        Raises:
            ShardError: a damaged header, or more than zeros behind the end marker.
        """
        begin = self._position
        self._position += len(data)
        while not self.ended:
            have = self._offset + len(self._kept)
            self._kept += data[max(0, have - begin) : max(0, self._offset + self._size - begin)]
            if len(self._kept) < self._size:
                return
            self._advance()
        rest = data[max(0, self._offset + self._size - begin) :]
        if rest.count(0) != len(rest):
            raise ShardError(f"shard {self.name} goes on behind its end marker: only one tar can be read from a stream")

    def close(self) -> None:
        """Note that there are no further bytes.

        Raises:
            ShardError: the end marker has not come.
        """
        if self._position == 0:
            raise ShardError(f"shard {self.name} is empty (0 bytes)")
        while not self.ended:
            self._advance()

    def _advance(self) -> None:
        """Give the walk what it asked for."""
        data = bytes(self._kept)
        self._kept.clear()
        try:
            self._offset, self._size = self._walk.send(data)
        except StopIteration:
            self.ended = True


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
                return _walk_file(data, path)
    except OSError as error:
        raise ShardError(f"shard {path} cannot be read: {error}") from error


def _walk_file(data: mmap.mmap, path: Path) -> list[Member]:
    """List the members of a file."""
    members: list[Member] = []
    walk = _walk(str(path), len(data), members.append)
    with suppress(StopIteration):
        offset, size = next(walk)
        while True:
            offset, size = walk.send(data[offset : offset + size])
    rest = data[offset + size :]
    if rest.count(0) != len(rest):  # `cat a.tar b.tar`: the second would be lost without a word
        raise ShardError(f"shard {path} goes on behind its end marker: give each tar a file of its own")
    return members


def _walk(path: str, end: float, found: Callable[[Member], None]) -> Generator[tuple[int, int], bytes, None]:
    """Step from header to header until the end marker, asking for bytes as (offset, size) in rising order.

    Args:
        path: what messages call the tar.
        end: its length, where that is known.
        found: is told of every plain file.
    """
    position, num_files = 0, 0
    override: dict[str, str] = {}
    while True:
        header = yield position, BLOCK
        if len(header) < BLOCK:
            raise ShardError(f"shard {path} has no end marker: truncated after {num_files} files")
        if header == ZERO_BLOCK:
            if (yield position + BLOCK, BLOCK) != ZERO_BLOCK:
                raise ShardError(f"shard {path} has half an end marker at byte {position}: truncated or corrupt")
            return
        _check_header(header, position, path)
        start, size = position + BLOCK, _number(header[124:136], position, path)
        kind = header[156:157]
        if kind in FILE_TYPES:
            size = int(override.get("size", size))
        if start + size > end:
            raise ShardError(f"shard {path} is truncated: the file at byte {position} ends after byte {end}")
        if kind in (b"L", b"x"):
            override.update(_read_override(kind, (yield start, size), position, path))
        elif kind != b"g":
            if kind in FILE_TYPES:
                num_files += 1
                found(Member(override.get("path") or _header_name(header), start, size))
            override = {}
        position = start + -(-size // BLOCK) * BLOCK


def _check_header(header: bytes, position: int, path: str) -> None:
    """Compare the checksum: the sum of all bytes, its own field counted as spaces."""
    expected = _number(header[148:156], position, path)
    if sum(header) - sum(header[148:156]) + 8 * 32 != expected:
        raise ShardError(f"shard {path} has a corrupt header at byte {position} (checksum)")


def _number(field: bytes, position: int, path: str) -> int:
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


def _read_override(kind: bytes, payload: bytes, position: int, path: str) -> dict[str, str]:
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
