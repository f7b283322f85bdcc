"""Figures without a display."""

from __future__ import annotations

import io

from PIL import Image

from internvl_lab.drawing import to_png
from internvl_lab.scaling.figure import colour, new_figure, new_panels


def test_panels_fill_rows() -> None:
    figure, panels = new_panels(4, "title", columns=3)
    assert len(panels) == 4 and len(figure.axes) == 6
    assert not figure.axes[5].axison and figure.axes[3].axison


def test_png_has_the_size_asked_for() -> None:
    assert Image.open(io.BytesIO(to_png(new_figure(5, 2)))).size == (600, 240)


def test_colours_repeat() -> None:
    assert colour(0) == colour(10) != colour(1)
