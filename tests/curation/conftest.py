"""A small input with one record of each fate, as JSONL and as shards."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from internvl_lab.data.shards import RawSample, write_shards


def jpeg(seed: int, size: tuple[int, int] = (96, 64), quality: int = 90) -> bytes:
    """Make a picture with detail at every scale that a perceptual hash looks at."""
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def talk(*texts: str, **fields: Any) -> dict[str, Any]:
    turns = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]
    return {**fields, "conversations": turns}


LOOP = "the answer is no and " * 40
RECORDS: list[dict[str, Any]] = [
    talk("<image>\nWhich colour?", "red", id=1, image="a.jpg"),
    talk("Why is the sky blue?", LOOP),
    talk("Is four even?", "yes"),
    talk("Is four even?", "yes", id="again"),
    talk("<image>\nWhich shape?", "ring", image="blank.jpg"),
    talk("<image>\nWhich number?", "7", image="missing.jpg"),
    talk("How many?", "0" * 100),
    talk("<image>\nWhich colour?", "red", id="saved again", image="b.jpg"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Give a JSONL file of nine lines with its images."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(jpeg(1))
    (folder / "b.jpg").write_bytes(jpeg(1, (90, 60), 60))
    blank = io.BytesIO()
    Image.new("RGB", (50, 40), "white").save(blank, "JPEG")
    (folder / "blank.jpg").write_bytes(blank.getvalue())
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS) + "{broken\n", encoding="utf-8")
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Give two shards: a sound sample, a loop, a sample of two images, and a copy of the first."""
    two = talk("<image>\n<image>\nWhich is bright?", "the second", id="x")
    samples = [
        RawSample("s-0", talk("<image>\nWhich colour?", "red"), (("jpg", jpeg(1)),)),
        RawSample("s-1", talk("<image>\nWhy?", LOOP), (("jpg", jpeg(2)),)),
        RawSample("s-2", two, (("jpg", jpeg(3)), ("jpg", jpeg(4)))),
        RawSample("s-3", talk("<image>\nWhich colour?", "red"), (("jpg", jpeg(1)),)),
    ]
    write_shards(samples, tmp_path / "shards", 2)
    return tmp_path / "shards"


@pytest.fixture
def lines() -> Callable[[Path], list[Any]]:
    """Give a reader of JSONL files."""
    return lambda path: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
