"""Read benchmarks in the formats in which they are distributed.

::

    VLMEvalKit's TSV (base64 images)      ┐
    JSON, JSONL with image paths          ├─ read_rows ─> Row: fields, images on demand
    HF parquet (images inside)            ┘
    films, frame folders, GIFs  ── read_video ─> frames

Nothing is held in memory but the texts: images stay where they are until a question is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from internvl_lab.errors import ConfigError
from internvl_lab.evaluation.readers.frames import read_video
from internvl_lab.evaluation.readers.json_rows import read_json_rows
from internvl_lab.evaluation.readers.parquet import read_parquet
from internvl_lab.evaluation.readers.row import Row
from internvl_lab.evaluation.readers.tsv import read_tsv

__all__ = ["Row", "read_rows", "read_video"]


def read_rows(path: Path, root: Path) -> Iterator[Row]:
    """Read the rows of one file by its suffix.

    Args:
        path: .tsv, .json, .jsonl or .parquet.
        root: folder that relative image paths start from.
    Raises:
        ConfigError: another suffix, a file that cannot be parsed, or a missing package.
    """
    readers = {".tsv": read_tsv, ".json": read_json_rows, ".jsonl": read_json_rows, ".parquet": read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"{path}: no reader for {path.suffix!r}; there are {', '.join(readers)}")
    yield from reader(path, root)
