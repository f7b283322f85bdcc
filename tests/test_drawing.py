"""Figures as bytes."""

from __future__ import annotations

import io

from matplotlib.figure import Figure
from PIL import Image

from internvl_lab.drawing import to_png


def test_png_has_the_size_asked_for() -> None:
    assert Image.open(io.BytesIO(to_png(Figure(figsize=(5, 2), dpi=120)))).size == (600, 240)
