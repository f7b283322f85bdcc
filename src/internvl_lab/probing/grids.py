"""Draw pictures beside their truth and prediction, for the eye to judge what mIoU sums up."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from internvl_lab.probing.masks import IGNORED, Mask

CELL = 168
"""Edge of a cell in pixels."""
GAP, CAPTION_HEIGHT = 4, 16
CAPTIONS = ("picture", "truth", "prediction")


def palette(num_classes: int) -> NDArray[np.uint8]:
    """Return a colour for each label, (256, 3): class 0 dark, others spread over the hues, ignored pixels white."""
    colours = np.full((256, 3), 255, np.uint8)
    colours[0] = (40, 40, 48)
    for label in range(1, min(num_classes, IGNORED)):
        hue, level = (label * 0.381966) % 1.0, (0.95, 0.75, 0.6)[label % 3]  # the golden ratio keeps neighbours apart
        colours[label] = [round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, level)]
    return colours


def draw_grid(examples: Sequence[tuple[Image.Image, Mask, Mask]], num_classes: int) -> Image.Image:
    """Draw one row an example: picture, truth (H, W) and prediction (H, W), in one palette.

    Raises:
        ValueError: no examples.
    """
    if not examples:
        raise ValueError("a grid needs at least one example")
    step = CELL + GAP
    sheet = Image.new("RGB", (3 * step - GAP, CAPTION_HEIGHT + len(examples) * step - GAP), "white")
    draw, colours = ImageDraw.Draw(sheet), palette(num_classes)
    for column, caption in enumerate(CAPTIONS):
        draw.text((column * step + 2, 1), caption, fill=(20, 20, 20))
    for row, (picture, truth, prediction) in enumerate(examples):
        shown = np.where(truth == IGNORED, IGNORED, prediction)
        cells = (picture, Image.fromarray(colours[truth]), Image.fromarray(colours[shown]))
        for column, (cell, smooth) in enumerate(zip(cells, (True, False, False), strict=True)):
            sheet.paste(_fit(cell, smooth), (column * step, CAPTION_HEIGHT + row * step))
    return sheet


def _fit(cell: Image.Image, smooth: bool) -> Image.Image:
    """Scale to fit a cell; class colours are never mixed."""
    scale = CELL / max(cell.size)
    size = (max(1, round(cell.width * scale)), max(1, round(cell.height * scale)))
    return cell.resize(size, Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)
