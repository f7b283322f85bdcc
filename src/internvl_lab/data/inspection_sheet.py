"""Draw encoded samples as the model gets them: the tiles in their order, and the text with the supervised part marked.

Each cell: source, kind and sizes; the tiles under their numbers (`2.3` is tile 3 of image 2; a thumbnail is framed);
the text decoded from the token ids, where what carries loss stands on green and a run of visual tokens is one word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from internvl_lab.constants import IGNORE_INDEX, IMAGE_CONTEXT_TOKEN
from internvl_lab.data.inspection import ShownSample
from internvl_lab.data.sheet import lay_out
from internvl_lab.text.template import ChatTemplate

COLUMNS = 3
CELL_WIDTH = 560
MARGIN = 14
GAP = 4
FEW, MANY = 4, 7
"""Tiles in a row: four larger ones for samples of at most four."""
MAX_TILES = 28
"""Tiles drawn of a sample; the others are counted."""
NEWLINE = "⏎"
FONT_SIZE, SMALL_SIZE = 15, 12
LINE_HEIGHT = 20
MAX_LINES = 14
"""Lines of text drawn of a sample; the middle of a longer one is left out."""
WIDE_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "WenQuanYi Zen Hei", "Arial Unicode MS", "SimHei")

BLACK, GREY = (20, 20, 20), (110, 110, 110)
BLUE, GREEN = (31, 78, 153), (206, 238, 214)
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Span:
    """Hold a run of text that is supervised as a whole or not at all."""

    text: str
    supervised: bool


def draw_sheet(samples: Sequence[ShownSample], template: ChatTemplate) -> Image.Image:
    """Draw all samples on a grid, row by row.

    Args:
        samples: at least one.
        template: decodes their ids.
    Returns:
        RGB image; rows are as high as their longest cell.
    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError("a contact sheet needs at least one sample")
    return lay_out([_draw_cell(shown, template) for shown in samples], COLUMNS)


def read_spans(shown: ShownSample, template: ChatTemplate) -> list[Span]:
    """Decode a sample's ids to runs of text, split where the supervision changes.

    The target of position t is token t + 1, so token t is supervised if position t - 1 has a label. A run of visual
    tokens is written as `<IMG_CONTEXT>*n`; visual tokens that have targets of their own (regions) stay unmarked.
    """
    ids = shown.batch.input_ids[0].tolist()
    targets = (shown.batch.labels[0] != IGNORE_INDEX).tolist()
    visual = [token == template.context_id for token in ids]
    supervised = [t > 0 and targets[t - 1] and not visual[t - 1] for t in range(len(ids))]
    decode = template.tokenizer.backend_tokenizer.decode
    spans: list[Span] = []
    for (is_visual, marked), run in groupby(range(len(ids)), key=lambda t: (visual[t], supervised[t])):
        tokens = [ids[t] for t in run]
        text = f"{IMAGE_CONTEXT_TOKEN}*{len(tokens)}" if is_visual else decode(tokens, skip_special_tokens=False)
        if spans and spans[-1].supervised == marked:
            text = spans.pop().text + text
        spans.append(Span(text, marked))
    return spans


def wrap_spans(spans: Sequence[Span], width: float) -> list[list[Span]]:
    """Break runs of text into lines of at most `width` pixels; line breaks in the text are kept."""
    width -= _font(FONT_SIZE).getlength(NEWLINE)
    lines: list[list[Span]] = [[]]
    used = 0.0
    for piece in _words(spans):
        if piece.text == "\n":
            lines[-1].append(Span(NEWLINE, piece.supervised))
            lines.append([])
            used = 0.0
            continue
        length = _font_of(piece.text).getlength(piece.text)
        if used and used + length > width:
            lines.append([])
            used = 0.0
        lines[-1].append(piece)
        used += length
    return [line for line in lines if line]


def _words(spans: Sequence[Span]) -> Iterator[Span]:
    """Split runs into words with their blanks, newlines, and parts of words that are too long for a line."""
    for span in spans:
        for number, paragraph in enumerate(span.text.split("\n")):
            if number:
                yield Span("\n", span.supervised)
            for word in re.findall(r"\S+\s*|\s+", paragraph):
                yield from (Span(word[i : i + 24], span.supervised) for i in range(0, len(word), 24))


def _draw_cell(shown: ShownSample, template: ChatTemplate) -> Image.Image:
    """Draw one sample."""
    batch = shown.batch
    lines = _shorten(wrap_spans(read_spans(shown, template), CELL_WIDTH - 2 * MARGIN))
    tiles = _draw_tiles(shown)
    facts = f"{batch.num_tokens} tokens, {batch.num_tiles} tiles, {int((batch.labels != IGNORE_INDEX).sum())} targets"
    text_top = MARGIN + 2 * LINE_HEIGHT + MARGIN // 2 + (tiles.height + MARGIN if tiles else 0)
    cell = Image.new("RGB", (CELL_WIDTH, text_top + len(lines) * LINE_HEIGHT + MARGIN), "white")
    draw = ImageDraw.Draw(cell)
    draw.text((MARGIN, MARGIN), f"{shown.source} · {shown.kind}", BLACK, font=_font(FONT_SIZE, bold=True))
    draw.text((CELL_WIDTH - MARGIN, MARGIN), facts, GREY, font=_font(SMALL_SIZE), anchor="ra")
    draw.text((MARGIN, MARGIN + LINE_HEIGHT), _cut(batch.sample_keys[0]), GREY, font=_font(SMALL_SIZE))
    if tiles:
        cell.paste(tiles, (MARGIN, MARGIN + 2 * LINE_HEIGHT + MARGIN // 2))
    for i, line in enumerate(lines):
        _draw_line(draw, line, text_top + i * LINE_HEIGHT)
    return cell


def _draw_line(draw: ImageDraw.ImageDraw, line: Sequence[Span], top: int) -> None:
    """Write the runs of one line side by side, the supervised ones on green."""
    left = float(MARGIN)
    for span in line:
        font = _font_of(span.text)
        right = left + font.getlength(span.text)
        if span.supervised:
            draw.rectangle((left, top, right, top + LINE_HEIGHT - 2), fill=GREEN)
        draw.text((left, top), span.text, BLACK if span.supervised else GREY, font=font)
        left = right


def _shorten(lines: list[list[Span]]) -> list[list[Span]]:
    """Leave out the middle of a long text, so that question and answer are both seen."""
    if len(lines) <= MAX_LINES:
        return lines
    head = MAX_LINES // 2
    left_out = Span(f"… {len(lines) - MAX_LINES + 1} lines …", False)
    return [*lines[:head], [left_out], *lines[len(lines) - (MAX_LINES - head - 1) :]]


def _draw_tiles(shown: ShownSample) -> Image.Image | None:
    """Draw the tiles in their order, numbered by image and tile; None for text alone."""
    tiles = shown.batch.pixel_values.permute(0, 2, 3, 1).numpy()
    if not len(tiles):
        return None
    names = _tile_names(shown.tiles_per_image, shown.thumbnails)
    per_row = FEW if len(tiles) <= FEW else MANY
    edge = (CELL_WIDTH - 2 * MARGIN - (per_row - 1) * GAP) // per_row
    drawn = len(tiles) if len(tiles) <= MAX_TILES else MAX_TILES - 1
    cells = -(-min(len(tiles), MAX_TILES) // per_row) * (edge + LINE_HEIGHT)
    strip = Image.new("RGB", (CELL_WIDTH - 2 * MARGIN, cells), "white")
    draw = ImageDraw.Draw(strip)
    for i in range(min(len(tiles), MAX_TILES)):
        left, top = (i % per_row) * (edge + GAP), (i // per_row) * (edge + LINE_HEIGHT)
        if i == drawn:
            left_out = f"{len(tiles) - drawn} more"
            draw.text((left + edge // 2, top + edge // 2), left_out, GREY, font=_font(SMALL_SIZE), anchor="mm")
            break
        name, thumbnail = names[i]
        draw.text((left, top), name, BLUE if thumbnail else GREY, font=_font(SMALL_SIZE))
        top += LINE_HEIGHT - GAP
        strip.paste(_scale(tiles[i], edge), (left, top))
        if thumbnail:
            draw.rectangle((left, top, left + edge - 1, top + edge - 1), outline=BLUE, width=3)
    return strip


def _tile_names(tiles_per_image: Sequence[int], thumbnails: bool) -> list[tuple[str, bool]]:
    """Name each tile, and say whether it is a thumbnail: with `thumbnails` the last of an image of several tiles."""
    if all(count == 1 for count in tiles_per_image):
        return [(str(image), False) for image in range(1, len(tiles_per_image) + 1)]
    prefixes = [f"{image}." if len(tiles_per_image) > 1 else "" for image in range(1, len(tiles_per_image) + 1)]
    return [
        (f"{prefix}{tile}", thumbnails and tile == count > 1)
        for prefix, count in zip(prefixes, tiles_per_image, strict=True)
        for tile in range(1, count + 1)
    ]


def _scale(tile: np.ndarray, edge: int) -> Image.Image:
    """Scale a tile (H, W, 3) uint8 to edge x edge pixels."""
    return Image.fromarray(tile).resize((edge, edge), Image.Resampling.LANCZOS)


def _cut(key: str, characters: int = 74) -> str:
    """Shorten a long key in front: its end tells samples apart."""
    return key if len(key) <= characters else "…" + key[1 - characters :]


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Load the font that comes with matplotlib, so that every machine draws the same sheet."""
    return ImageFont.truetype(_path("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"), size)


def _font_of(text: str) -> ImageFont.FreeTypeFont:
    """Choose the font of a text: where DejaVu lacks its letters (Chinese), one of this machine, if it has one."""
    if all(ord(letter) in _covered() for letter in text):
        return _font(FONT_SIZE)
    return _wide_font() or _font(FONT_SIZE)


@cache
def _covered() -> frozenset[int]:
    """Return the characters that DejaVu can draw."""
    return frozenset(FT2Font(_path("DejaVuSans.ttf")).get_charmap())


@cache
def _wide_font() -> ImageFont.FreeTypeFont | None:
    """Load a font with Chinese, Japanese and Korean letters; None if this machine has none of the usual ones."""
    found = {entry.name: entry.fname for entry in font_manager.fontManager.ttflist}
    path = next((found[name] for name in WIDE_FONTS if name in found), None)
    return ImageFont.truetype(path, FONT_SIZE) if path else None


def _path(font_file: str) -> str:
    """Return where matplotlib keeps a font."""
    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / font_file)
