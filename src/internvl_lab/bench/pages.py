"""Shards for the loader bench where none are named: miniworld's pictures at the size of real photos."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from PIL import Image

from internvl_lab.data.miniworld import generate
from internvl_lab.data.shards import RawSample, write_shards

SCALE = 6
"""Miniworld's 112 pixels become 672: one to twelve tiles of 448."""


def write_pages(folder: Path, num_samples: int, seed: int) -> list[Path]:
    """Write shards of `num_samples` enlarged miniworld samples, the same for the same arguments."""
    return write_shards(_enlarged(num_samples, seed), folder, 100)


def _enlarged(num_samples: int, seed: int) -> Iterator[RawSample]:
    for sample in generate("finetune", num_samples, seed):
        yield replace(sample, images=tuple(("jpg", _enlarge(data)) for _, data in sample.images))


def _enlarge(data: bytes) -> bytes:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    buffer = io.BytesIO()
    image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
