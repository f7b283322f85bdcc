"""Write WebDataset shards, from samples in memory or from the authors' JSONL with image files.

```
annotation.jsonl + image files ── read_jsonl_samples ──> RawSample ── write_shards ──> shard-000000.tar ... shards.json
                                        └─ SampleError ──> the caller counts it (`convert`: rejected.jsonl)
```

A shard holds KEY.json and KEY.<n>.<ext> for each sample. Its bytes depend on the samples alone (no time, no user), and
it appears under its final name only when it is complete. `shards.json` comes last and lists all shards with their
sample counts and digests, so that a shard that is lost later is missed (`locations.find_shards`) and one that is
fetched from elsewhere can be checked (`remote`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from internvl_lab.atomic import write_atomic
from internvl_lab.constants import STORED_FRAMES
from internvl_lab.data.pool import progress_bar
from internvl_lab.data.records import parse_line, parse_record
from internvl_lab.data.transforms import read_image_size
from internvl_lab.data.video import parse_clip, read_frames
from internvl_lab.errors import ConfigError, SampleError

logger = logging.getLogger(__name__)

SHARD_NAME = "shard-{:06d}.tar"
MANIFEST = "shards.json"
"""Lists the shards of a folder: {"shards": {name: number of samples}, "bytes": {name: size}, "sha256": {name: digest}}.
"""
IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "gif", "webp", "bmp", "tif", "tiff", "ppm")
"""Members of a shard that count as images; others (captions, classes, masks of other tools) are passed over."""
_KEY = re.compile(r"^[^./][^.]*$")
"""Keys hold no dot: webdataset splits member names at the first one."""


@dataclass(frozen=True)
class RawSample:
    """Hold one sample as it is stored: its JSON object and its image files."""

    key: str
    record: dict[str, Any]
    """The authors' format; see `records.parse_record`."""
    images: tuple[tuple[str, bytes], ...]
    """(extension, file bytes) in placeholder order; a video's are its frames."""


def write_shards(
    samples: Iterable[RawSample],
    out_dir: Path,
    samples_per_shard: int,
    progress: bool = False,
    total: int | None = None,
) -> list[Path]:
    """Write samples into numbered shards, each complete or absent, and their manifest when all are written.

    Args:
        samples: in the order in which they are stored; consumed lazily.
        progress, total: draw a progress bar, over `total` samples where known.
    Returns:
        The shards written, in order; empty where there were no samples.
    Raises:
        ConfigError: `samples_per_shard` below 1.
        ValueError: a key that is empty, holds a dot or starts with a slash.
    """
    if samples_per_shard < 1:
        raise ConfigError(f"samples_per_shard={samples_per_shard} must be at least 1")
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    stream = iter(samples)
    (out_dir / MANIFEST).unlink(missing_ok=True)  # an older one does not describe what is written now
    written: list[WrittenShard] = []
    with progress_bar(progress) as bar:
        task = bar.add_task(f"shards in {out_dir.name}", total=total)
        for first in stream:  # streams inside a shard too: a thousand scanned pages do not fit in memory everywhere
            path = out_dir / SHARD_NAME.format(len(written))
            rest = islice(stream, samples_per_shard - 1)
            written.append(write_shard(bar.track(chain([first], rest), task_id=task), path))
    write_manifest(out_dir, written)
    return [out_dir / shard.name for shard in written]


@dataclass(frozen=True)
class WrittenShard:
    """Describe a shard for the manifest."""

    name: str
    samples: int
    bytes: int
    sha256: str


def write_manifest(out_dir: Path, shards: Iterable[WrittenShard], **more: Any) -> None:
    """Write the manifest of a folder, atomically; `more` are further entries."""
    manifest: dict[str, Any] = {"shards": {}, "bytes": {}, "sha256": {}}
    for shard in shards:
        manifest["shards"][shard.name] = shard.samples
        manifest["bytes"][shard.name] = shard.bytes
        manifest["sha256"][shard.name] = shard.sha256
    write_atomic(out_dir / MANIFEST, json.dumps({**manifest, **more}, indent=1) + "\n")


def write_shard(samples: Iterable[RawSample], path: Path) -> WrittenShard:
    """Write one tar beside its final name and move it there when all bytes are on disk; without samples, none.

    Raises:
        ValueError: a key that is empty, holds a dot or starts with a slash.
    """
    from webdataset.writer import TarWriter  # here, because it takes a second to import and readers do not need it

    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w+b") as file:
            with TarWriter(file, user="root", group="root", mtime=0, encoder=False) as tar:
                count = sum(1 for _ in map(tar.write, map(_members, samples)))
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(file.fileno()).st_size
        if count:
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return WrittenShard(path.name, count, size, digest)


def _members(sample: RawSample) -> dict[str, str | bytes]:
    """Lay out one sample as webdataset's writer wants it: suffix to bytes."""
    if not _KEY.match(sample.key):
        raise ValueError(f"key {sample.key!r} must not be empty, hold a dot or start with a slash")
    members: dict[str, str | bytes] = {"__key__": sample.key}
    for number, (extension, data) in enumerate(sample.images):
        members[f"{number}.{extension}"] = data
    members["json"] = json.dumps(sample.record, ensure_ascii=False).encode()
    return members


def read_jsonl_samples(
    annotation: Path, root: Path, *, prefix: str | None = None, stored_frames: int = STORED_FRAMES
) -> Iterator[RawSample | SampleError]:
    """Read the authors' JSONL with its image files.

    Args:
        annotation: the JSONL file.
        root: folder that the paths in it are relative to; none may leave it.
        prefix: beginning of the keys, PREFIX-LINE; None = the annotation's name. Ids of the data are not used, because
            they repeat in many public sets; they stay in the record.
        stored_frames: most frames that are kept of a video.
    Yields:
        Each usable sample, or in its place the SampleError that says why not: those of `parse_line`, `parse_record`,
        `read_image_size` and `read_frames`, and `missing_file`, `path_outside_root`, `remote_path`.
    """
    annotation = Path(annotation)
    with annotation.open("rb") as lines:
        yield from read_lines(lines, 1, annotation.stem if prefix is None else prefix, Path(root), stored_frames)


def read_lines(
    lines: Iterable[bytes], first_line: int, prefix: str, root: Path, stored_frames: int
) -> Iterator[RawSample | SampleError]:
    """Read some lines of an annotation; `first_line` is the number of the first. Otherwise `read_jsonl_samples`."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", prefix)
    for number, line in enumerate(lines, start=first_line):
        if line.strip():
            key = f"{stem}-{number:08d}"
            try:
                yield _read_sample(parse_line(line, key), key, root, stored_frames)
            except SampleError as error:
                yield error


def _read_sample(raw: dict[str, Any], key: str, root: Path, stored_frames: int) -> RawSample:
    """Load one record's files and check it as the index will."""
    if isinstance(raw.get("video"), str) and raw["video"]:
        clip = parse_clip(raw.get("clip"), key)
        images = read_frames(_inside(root, raw["video"], key), key, stored_frames, clip)
        parse_record(raw, key, len(images))
    else:
        names = parse_record(raw, key).images
        images = [_read_file(_inside(root, name, key), key) for name in names]
    for _, data in images:
        read_image_size(data, key)
    return RawSample(key, raw, tuple(images))


def _inside(root: Path, name: str, key: str) -> Path:
    """Join a path of the annotation to its root, refusing what lies elsewhere."""
    if "://" in name:
        raise SampleError(key, "remote_path", f"{name}: download the files and give a local root")
    base = os.path.abspath(root)
    path = os.path.normpath(os.path.join(base, name))
    if os.path.commonpath([base, path]) != base or "\0" in name:
        raise SampleError(key, "path_outside_root", f"{name!r} leaves {root}")
    return Path(path)


def _read_file(path: Path, key: str) -> tuple[str, bytes]:
    """Read an image file as (extension, bytes); the extension only says that it is an image."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SampleError(key, "missing_file", f"{path}: {error.strerror}") from error
    extension = path.suffix.lower().lstrip(".")
    return extension if extension in IMAGE_SUFFIXES else "jpg", data
