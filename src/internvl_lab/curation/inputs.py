"""Find out what there is to curate, and cut it into chunks that are scored on their own.

    meta.json | data.jsonl | folder of shards | folder of such folders ── find_input ──> Input(sources)
    Input ── plan_chunks ──> Chunk: about 2 MiB of a JSONL file, or one shard

The chunks follow from the input alone, so a killed run finds the same ones again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from internvl_lab.data.locations import find_shards
from internvl_lab.errors import ConfigError

CHUNK_BYTES = 2 * 2**20
"""Bytes of JSONL in a chunk: large enough to hide the cost of a task, small enough to lose little to a kill."""


@dataclass(frozen=True)
class Source:
    """Hold one source: a JSONL file with the root of its images, or a folder of shards."""

    name: str
    path: Path
    root: Path
    meta: dict[str, Any]
    """Its entry in the meta JSON; {} for shards."""


@dataclass(frozen=True)
class Chunk:
    """Locate one chunk of work."""

    number: int
    """Position in the whole input; chunks in order hold the records in order."""
    source: Source
    path: Path
    """The JSONL file or the shard."""
    start: int
    stop: int
    """Bytes [start, stop) of `path`."""
    first_line: int
    """Number of the first line, from 1; of no meaning for shards."""


@dataclass(frozen=True)
class Input:
    """Hold everything that is to be curated."""

    path: Path
    kind: Literal["jsonl", "shards"]
    sources: tuple[Source, ...]

    @property
    def files(self) -> list[Path]:
        """List the JSONL files or shards, in order."""
        return [file for source in self.sources for file in self.files_of(source)]

    def files_of(self, source: Source) -> list[Path]:
        """List the JSONL file or the shards of one source.

        Raises:
            ShardError: a shard is missing.
        """
        return [source.path] if self.kind == "jsonl" else find_shards(source.path)

    @property
    def fingerprint(self) -> str:
        """Hash the names, sizes and times of change of all files: 16 hexadecimal digits."""
        digest = hashlib.sha256(self.kind.encode())
        for file in self.files:
            stat = file.stat()
            digest.update(f"{file.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        return digest.hexdigest()[:16]


def find_input(path: Path, root: Path | None = None) -> Input:
    """Tell what `path` is and list its sources.

    Args:
        path: the authors' meta JSON, a JSONL file, a folder of shards, or a folder of folders of shards.
        root: folder of a JSONL file's images; default: the file's own. A meta JSON names its own.
    Raises:
        ConfigError: there is nothing of the kind.
    """
    path = Path(path)
    if path.is_dir():
        return Input(path, "shards", tuple(_shard_sources(path)))
    if not path.is_file():
        raise ConfigError(f"--in {path} does not exist")
    if path.suffix == ".jsonl":
        root = path.parent if root is None else root
        meta = {"root": str(root), "annotation": str(path)}
        return Input(path, "jsonl", (Source(_file_name(path.stem), path, root, meta),))
    return Input(path, "jsonl", tuple(_meta_sources(path)))


def plan_chunks(given: Input) -> Iterator[Chunk]:
    """Yield the chunks of all sources in order; reads a JSONL file once, to count its lines."""
    number = 0
    for source in given.sources:
        for file in given.files_of(source):
            size = file.stat().st_size
            ranges = _line_ranges(file) if given.kind == "jsonl" else [(0, size, 1)]
            for start, stop, line in ranges:
                yield Chunk(number, source, file, start, stop, line)
                number += 1


def _line_ranges(file: Path) -> Iterator[tuple[int, int, int]]:
    """Cut a file behind whole lines: (start, stop, number of the first line)."""
    line = 1
    with file.open("rb") as stream:
        start = 0
        while block := stream.read(CHUNK_BYTES):
            block += stream.readline()
            yield start, start + len(block), line
            start, line = start + len(block), line + block.count(b"\n")


def _shard_sources(folder: Path) -> list[Source]:
    """Take the folder as one source, or each of its folders that holds shards."""
    folders = [folder] if any(folder.glob("*.tar")) else sorted({tar.parent for tar in folder.glob("*/*.tar")})
    if not folders:
        raise ConfigError(f"--in {folder} holds no shards (*.tar)")
    return [Source(_file_name(found.resolve().name), found, found, {}) for found in folders]


def _meta_sources(path: Path) -> Iterator[Source]:
    """Read the authors' meta JSON; paths are relative to the current directory, as in their scripts."""
    try:
        entries = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"meta file {path} cannot be read: {error}") from error
    if not isinstance(entries, dict) or not entries:
        raise ConfigError(f"meta file {path} must map source names to settings")
    for name, entry in entries.items():
        if not isinstance(entry, dict) or not all(isinstance(entry.get(k), str) for k in ("root", "annotation")):
            raise ConfigError(f"meta file {path}: source {name!r} needs `root` and `annotation`")
        if name != _file_name(name):
            raise ConfigError(f"meta file {path}: source name {name!r} cannot be a file's name")
        annotation = Path(entry["annotation"])
        if not annotation.is_file():
            raise ConfigError(f"meta file {path}: annotation {annotation} of source {name!r} does not exist")
        yield Source(name, annotation, Path(entry["root"]), entry)


def _file_name(name: str) -> str:
    """Make a source's name out of a file's: no slash, no leading dot, and no colon, which ends it in a key."""
    return re.sub(r"^\.|[/:\0]", "_", name) or "_"
