"""Measure the records of one chunk: what a worker process does.

    Chunk ── read_items ──> Item ── rules ──> findings ──> scores/NNNNNN.jsonl   ["key", {"rule": [score, "detail"]}]
                                 ── sign ───> row ───────> signatures/NNNNNN.npz

Scores know no threshold, so that thresholds can change without measuring again.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from internvl_lab.atomic import write_atomic
from internvl_lab.config.curation import CurationConfig
from internvl_lab.curation.inputs import Chunk
from internvl_lab.curation.items import Item, dump, image_names, loose_turns, read_images, read_items, to_record
from internvl_lab.curation.rules import IMAGE_RULES, Finding, apply_text_rules
from internvl_lab.curation.signatures import COLUMNS, Row, sign
from internvl_lab.curation.verdicts import CurationRecord
from internvl_lab.data.transforms import decode_image
from internvl_lab.errors import SampleError

VERSION = 1
"""Of rules and signatures; another number means: measure again."""
DIGITS = 6
"""Decimals of a score."""
PLACEHOLDER_REASONS = ("image_count", "video_frames")
"""Faults of `parse_record` that rule `placeholders` reports; all others are `malformed_record`."""

Scores = dict[str, Finding]


@dataclass(frozen=True)
class Measuring:
    """Hold what scores and signatures depend on beside the records; picklable, for workers."""

    languages: tuple[tuple[str, tuple[str, ...]], ...]
    read_images: bool
    near_text: bool
    near_images: bool

    @classmethod
    def of(cls, config: CurationConfig) -> Measuring:
        """Take what matters from the configuration; thresholds and exemptions do not."""
        near_images = config.read_images and config.rules.near_duplicate_image.enabled
        languages = tuple(config.languages.items())
        return cls(languages, config.read_images, config.rules.near_duplicate.enabled, near_images)

    @property
    def fingerprint(self) -> str:
        """Hash the rules' version and settings, but for whether near duplicates are measured: 16 hexadecimal digits."""
        return hashlib.sha256(repr((VERSION, self.languages, self.read_images)).encode()).hexdigest()[:16]

    def scripts_of(self, source: str) -> tuple[str, ...]:
        """Return the scripts expected of a source."""
        return CurationConfig(languages=dict(self.languages)).scripts_of(source)


def scores_path(folder: Path, number: int) -> Path:
    """Name the scores of a chunk."""
    return folder / "scores" / f"{number:06d}.jsonl"


def signatures_path(folder: Path, number: int) -> Path:
    """Name the signatures of a chunk."""
    return folder / "signatures" / f"{number:06d}.npz"


def measure_chunk(chunk: Chunk, settings: Measuring, folder: Path) -> int:
    """Measure a chunk and write its two files, each complete or absent, the scores last.

    Returns:
        The number of records.
    Raises:
        ShardError: the shard is damaged.
    """
    lines, rows = [], []
    scripts = settings.scripts_of(chunk.source.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `decode_image` judges our own limit
        for item in read_items(chunk):
            scores, row = measure_item(item, settings, scripts)
            lines.append(dump([item.key, {k: [round(f.score, DIGITS), f.detail] for k, f in scores.items()}]))
            rows.append(row)
    _save_rows(rows, signatures_path(folder, chunk.number))
    text = "".join(f"{line}\n" for line in lines)
    write_atomic(scores_path(folder, chunk.number), text.encode("utf-8", "backslashreplace"))
    return len(lines)


def measure_item(item: Item, settings: Measuring, scripts: tuple[str, ...] = ()) -> tuple[Scores, Row]:
    """Measure one record by every rule but the search for duplicates, and sign it."""
    record = to_record(item)
    turns = record.turns if isinstance(record, CurationRecord) else loose_turns(item)
    scores = apply_text_rules(turns, scripts)
    if isinstance(record, SampleError):
        rule = "placeholders" if record.reason in PLACEHOLDER_REASONS else "malformed_record"
        earlier = scores.get(rule, Finding(0.0))
        details = filter(None, (f"{record.reason}: {record.detail}", earlier.detail))
        scores[rule] = Finding(earlier.score + 1, "; ".join(details))
    digests, images = _look_at_images(item, settings, scores)
    if not turns:
        digests.append(item.payload)  # nothing can be read of it: only its bytes tell it from others
    return scores, sign(turns, digests, images if settings.near_images else (), settings.near_text)


def read_scores(path: Path) -> Iterator[tuple[str, Scores]]:
    """Yield (key, findings) of every record of a chunk."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            key, found = json.loads(line)
            yield key, {rule: Finding(score, detail) for rule, (score, detail) in found.items()}


def _look_at_images(item: Item, settings: Measuring, scores: Scores) -> tuple[list[bytes], list[Image.Image]]:
    """Judge a record's images; return what tells them apart exactly, and the decoded ones if all are sound."""
    names = image_names(item)
    video = item.raw.get("video") if isinstance(item.raw, Mapping) else None
    if isinstance(names, SampleError) or not names:
        return [video.encode()] if isinstance(video, str) else [], []
    if not settings.read_images:
        return [name.encode() for name in names], []
    files = read_images(item)
    pairs = zip(files, names, strict=True)
    digests = [_digest(data) if isinstance(data, bytes) else name.encode() for data, name in pairs]
    images = [_decode(data, item.key) if isinstance(data, bytes) else data for data in files]
    for name, rule in IMAGE_RULES.items():
        if (finding := rule(images)).score > 0:
            scores[name] = finding
    sound = [image for image in images if isinstance(image, Image.Image)]
    return digests, sound if len(sound) == len(images) else []


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _decode(data: bytes, key: str) -> Image.Image | SampleError:
    try:
        return decode_image(data, key)
    except SampleError as error:
        return error


def _save_rows(rows: list[Row], path: Path) -> None:
    """Write the signatures of a chunk as one array a column."""
    empty = {name: np.zeros((0, width), dtype) for name, (dtype, width) in COLUMNS.items()}
    columns: dict[str, Any] = {name: np.stack([row[name] for row in rows]) for name in COLUMNS} if rows else empty
    buffer = io.BytesIO()
    np.savez(buffer, **columns)
    write_atomic(path, buffer.getvalue())


def remove_signatures(folder: Path) -> None:
    """Remove what the index holds now, and what kills have left half written."""
    shutil.rmtree(folder / "signatures", ignore_errors=True)  # a worker of a killed run may still be leaving
    for partial in (folder / "scores").glob(".*.partial"):
        partial.unlink(missing_ok=True)
