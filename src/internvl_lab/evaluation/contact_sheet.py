"""Show questions, pictures and answers on one image that a reader can check by eye.

Each cell: the task and its outcome, the pictures enlarged side by side (frames of a video in two rows), the question,
the reference, the prediction in green or red, and what the model says without the pictures.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from internvl_lab.constants import IMAGE_PLACEHOLDER
from internvl_lab.data.sheet import lay_out
from internvl_lab.evaluation.metrics import BOX_SCALE, parse_box
from internvl_lab.evaluation.results import Example

COLUMNS = 4
CELL_WIDTH = 420
PICTURE_HEIGHT = 250
MARGIN = 12
FONT_SIZE = 16
LINE_HEIGHT = 20
MAX_LINES = 4
"""Lines shown of a question or an answer; longer ones end in an ellipsis."""
LONGEST_LINE, SHORTEST_LINE = 60, 20
"""Characters a line may have, depending on how wide they are."""
MAX_FRAMES = 8
"""Frames of a video that are shown."""

BLACK, GREY = (20, 20, 20), (110, 110, 110)
GREEN, RED = (16, 124, 52), (192, 28, 28)
Colour = tuple[int, int, int]


def draw_contact_sheet(examples: Sequence[Example]) -> Image.Image:
    """Draw all examples on a grid, row by row.

    Returns:
        RGB image; rows are as high as their longest cell.
    Raises:
        ValueError: no examples.
    """
    if not examples:
        raise ValueError("a contact sheet needs at least one example")
    return lay_out([_draw_cell(example) for example in examples], COLUMNS)


def _draw_cell(example: Example) -> Image.Image:
    """Draw one example."""
    prediction = example.prediction
    right = prediction.correct
    lines = _wrap("Q", show_question(prediction.question), BLACK)
    lines += _wrap("reference", prediction.reference, GREY)
    lines += _wrap("model", prediction.prediction or "(empty)", GREEN if right else RED)
    if prediction.blind_prediction is not None and example.images:
        lines += _wrap("blind", prediction.blind_prediction or "(empty)", GREY)
    pictures = _draw_pictures(example)
    text_top = LINE_HEIGHT + 2 * MARGIN + (pictures.height + MARGIN if pictures else 0)
    cell = Image.new("RGB", (CELL_WIDTH, text_top + len(lines) * LINE_HEIGHT + MARGIN), "white")
    draw = ImageDraw.Draw(cell)
    draw.text((MARGIN, MARGIN), example.task, BLACK, font=_font(bold=True))
    mark = "correct" if right else "wrong"
    draw.text((CELL_WIDTH - MARGIN, MARGIN), mark, GREEN if right else RED, font=_font(bold=True), anchor="ra")
    if pictures:
        cell.paste(pictures, ((CELL_WIDTH - pictures.width) // 2, LINE_HEIGHT + 2 * MARGIN))
    for i, (text, colour) in enumerate(lines):
        draw.text((MARGIN, text_top + i * LINE_HEIGHT), text, colour, font=_font())
    return cell


def show_question(question: str) -> str:
    """Drop the lines of a question that only hold a placeholder (`<image>`, `Frame-3: <image>`)."""
    lines = [line for line in question.splitlines() if not line.rstrip().endswith(IMAGE_PLACEHOLDER)]
    return " ".join(" ".join(lines).replace(IMAGE_PLACEHOLDER, "").split())


def _draw_pictures(example: Example) -> Image.Image | None:
    """Scale the pictures of an example to fit a cell; boxes of a grounding answer are drawn in."""
    shown = _pick_frames(example.images)
    if not shown:
        return None
    per_row = len(shown) if len(shown) <= 3 else math.ceil(len(shown) / 2)
    rows = math.ceil(len(shown) / per_row)
    width = (CELL_WIDTH - 2 * MARGIN - (per_row - 1) * 4) // per_row
    height = (PICTURE_HEIGHT - (rows - 1) * 4) // rows
    scaled = [_fit(_draw_boxes(image, example), width, height) for image in shown]
    height = max(image.height for image in scaled)
    strip = Image.new("RGB", (per_row * (width + 4) - 4, rows * (height + 4) - 4), "white")
    for i, image in enumerate(scaled):
        left = (i % per_row) * (width + 4) + (width - image.width) // 2
        strip.paste(image, (left, (i // per_row) * (height + 4)))
    return strip


def _pick_frames(images: Sequence[Image.Image]) -> list[Image.Image]:
    """Take at most MAX_FRAMES pictures, evenly spread, the first and the last among them."""
    if len(images) <= MAX_FRAMES:
        return list(images)
    return [images[round(i * (len(images) - 1) / (MAX_FRAMES - 1))] for i in range(MAX_FRAMES)]


def _fit(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scale to fit; small pictures keep hard pixels when enlarged, large ones are smoothed when reduced."""
    scale = min(width / image.width, height / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS)


def _draw_boxes(image: Image.Image, example: Example) -> Image.Image:
    """Draw the reference's box in grey and the prediction's in green or red, where they have one."""
    prediction = example.prediction
    boxes = [
        (parse_box(prediction.reference), GREY),
        (parse_box(prediction.prediction), GREEN if prediction.correct else RED),
    ]
    drawn = image.convert("RGB")
    draw = ImageDraw.Draw(drawn)
    line = max(1, round(max(image.size) / 130))
    for box, colour in boxes:
        if box is not None:
            scales = (image.width - 1, image.height - 1) * 2
            draw.rectangle([v * s / BOX_SCALE for v, s in zip(box, scales, strict=True)], outline=colour, width=line)
    return drawn


def _wrap(label: str, text: str, colour: Colour) -> list[tuple[str, Colour]]:
    """Break a labelled text into lines that fit the cell, as long as the widest of them allows."""
    width = CELL_WIDTH - 2 * MARGIN
    lines: list[str] = []
    for characters in range(LONGEST_LINE, SHORTEST_LINE - 1, -1):
        lines = textwrap.wrap(f"{label}: {text}", characters, max_lines=MAX_LINES, placeholder=" …")
        if all(_font().getlength(line) <= width for line in lines):
            break
    return [(line, colour) for line in lines]


@cache
def _font(bold: bool = False) -> ImageFont.FreeTypeFont:
    """Load the font that comes with matplotlib, so that every machine draws the same sheet."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), FONT_SIZE)
