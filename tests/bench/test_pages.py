from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from internvl_lab.bench.pages import SCALE, write_pages
from internvl_lab.data.index import build_index
from internvl_lab.data.miniworld import generate
from internvl_lab.text import ChatTemplate, load_tokenizer


def test_pages_are_miniworld_enlarged_and_reproducible(tmp_path: Path) -> None:
    (path,), (again,) = (write_pages(tmp_path / name, 12, 3) for name in "ab")
    assert path.read_bytes() == again.read_bytes()
    index = build_index(tmp_path / "a", ChatTemplate(load_tokenizer("asset:tokenizer"), ""))
    assert len(index) == 12 and index.problems == []
    small = [Image.open(io.BytesIO(data)).size for sample in generate("finetune", 12, 3) for _, data in sample.images]
    assert list(zip(index.width, index.height, strict=True)) == [(w * SCALE, h * SCALE) for w, h in small]
