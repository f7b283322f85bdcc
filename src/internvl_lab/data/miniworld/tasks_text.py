"""Tasks about written text: ocr (random strings) and document (a field of a form with small print)."""

from __future__ import annotations

from random import Random

from internvl_lab.data.miniworld.canvas import Canvas, Color, background, paint_rectangle, paint_text, text_size
from internvl_lab.data.miniworld.draft import Draft, Question
from internvl_lab.data.miniworld.font import GLYPH_HEIGHT
from internvl_lab.data.miniworld.marks import mark
from internvl_lab.data.miniworld.scene import dark_color
from internvl_lab.data.miniworld.vocabulary import (
    COLORS,
    NUMBER_KEYS,
    OCR_ALPHABET,
    TITLES,
    WORD_CONSONANTS,
    WORD_KEYS,
    WORD_VOWELS,
)

OCR_PROMPTS = ("Read the text.", "What is written here?")
LINES_PROMPT = "Read all lines."
FIELD_PROMPTS = ("What is the {}?", "Give the {}.")
FIELDS_PROMPT = "List every field."

TILE = 112
CELL = 28
"""Edge in pixels of one visual token of a 112 pixel tile; lines and large characters keep this pitch."""

PITCH = 14
VALUE_INDENT = 70
"""Pixels between small characters, and from a field's key (up to 4 characters) to its value."""

PAGE_GRIDS = ((2, 3), (3, 2), (2, 3), (3, 2), (2, 2), (2, 2), (2, 2), (1, 3), (3, 1))
"""(columns, rows) of tiles that pages fill: without tiling their print shrinks below legibility."""

Ink = tuple[Color, Color]


def random_ink(rng: Random) -> Ink:
    """Draw (paper, ink): a light colour on dark paper or a dark one on light paper."""
    if rng.random() < 0.5:
        return dark_color(rng), COLORS[rng.choice(("white", "yellow", "cyan", "orange", "green"))]
    level = rng.randint(205, 240)
    dark = rng.choice(((20, 20, 20), (20, 30, 120), (120, 20, 20), (10, 80, 30)))
    return (level, level, level - rng.randint(0, 24)), dark


def _jitter(rng: Random, size: int) -> int:
    """Vary an edge by a few pixels, so that not every picture is a whole number of tiles."""
    return size + rng.choice((0, 0, 0, rng.randint(-3, 6)))


def ocr(rng: Random, dense: bool) -> Draft:
    """Draw a random string of 3 to 4 characters, or 5 to 6 in a wide picture; several lines if `dense`."""
    wide = rng.random() < 0.25
    columns = 8 if wide else 4
    lines = [
        "".join(rng.choice(OCR_ALPHABET) for _ in range(rng.randint(5, 6) if wide else rng.randint(3, 4)))
        for _ in range(rng.randint(2, 3) if dense else 1)
    ]
    rows = sorted(rng.sample(range(4), len(lines)))
    starts = [rng.randint(0, columns - len(line)) * CELL for line in lines]
    size = (_jitter(rng, columns * CELL), _jitter(rng, TILE))
    seed = rng.getrandbits(32)

    def paint() -> tuple[Canvas, ...]:
        """Paint the lines, each character slightly off its place; one (H, W, 3) canvas."""
        local = Random(seed)
        paper, ink = random_ink(local)
        canvas = background(*size, paper, local.getrandbits(20))
        scale = local.choice((3, 3, 4))
        for line, row, start in zip(lines, rows, starts, strict=True):
            x, y = start + (CELL - 5 * scale) // 2, row * CELL + (CELL - 7 * scale) // 2
            for position, character in enumerate(line):
                dx, dy = local.randint(-2, 2), local.randint(-2, 2)
                left = min(max(x + position * CELL + dx, 1), size[0] - 5 * scale - 1)
                top = min(max(y + dy, 1), size[1] - 7 * scale - 1)
                paint_text(canvas, character, left, top, scale, CELL, ink)
        return (canvas,)

    text = "\n".join(lines)
    return Draft(
        questions=(Question(LINES_PROMPT if dense else rng.choice(OCR_PROMPTS), text),),
        combinations=tuple(lines),
        sizes=(size,),
        scenes=(" / ".join(" ".join(line) for line in lines),),
        paint=paint,
    )


def _random_value(rng: Random, key: str) -> str:
    """Draw three digits for a number field, or a consonant-vowel-consonant word."""
    if key in NUMBER_KEYS:
        return str(rng.randint(100, 999))
    return rng.choice(WORD_CONSONANTS) + rng.choice(WORD_VOWELS) + rng.choice(WORD_CONSONANTS)


def document(rng: Random, dense: bool) -> Draft:
    """Draw a form of 4 to 8 fields in print of 10 x 14 pixels; ask for the value of one field."""
    del dense
    columns, rows = rng.choice(PAGE_GRIDS)
    size = (_jitter(rng, columns * TILE), _jitter(rng, rows * TILE))
    keys = rng.sample(NUMBER_KEYS + WORD_KEYS, rng.randint(4, min(8, columns * rows * 4 - 2)))
    fields = [(key, _random_value(rng, key)) for key in keys]
    slots = sorted(rng.sample([(r, c) for r in range(1, rows * 4) for c in range(columns)], len(fields)))
    seed = rng.getrandbits(32)
    order = rng.sample(fields, len(fields))
    listing = [f"{key}: {value}" for key, value in fields]
    return Draft(
        questions=tuple(Question(rng.choice(FIELD_PROMPTS).format(key), value) for key, value in order),
        combinations=tuple(f"{key}: {value}" for key, value in order),
        dense=(Question(FIELDS_PROMPT, "\n".join(listing)),),
        sizes=(size,),
        scenes=("; ".join(f"{key} {value}" for key, value in fields),),
        paint=lambda: (_paint_form(size, fields, slots, seed),),
    )


def _paint_form(
    size: tuple[int, int], fields: list[tuple[str, str]], slots: list[tuple[int, int]], seed: int
) -> Canvas:
    """Paint a title, the rules of a table, and each field in its slot (row, column); returns (H, W, 3) uint8."""
    rng = Random(seed)
    paper, ink = random_ink(rng)
    canvas = background(*size, paper, rng.getrandbits(20))
    red, green, blue = ((3 * p + i) // 4 for p, i in zip(paper, ink, strict=True))
    for y in range(CELL, size[1], CELL):
        paint_rectangle(canvas, (0, y - 1, size[0], y), (red, green, blue))
    for x in range(TILE, size[0], TILE):
        paint_rectangle(canvas, (x - 1, CELL, x, size[1]), (red, green, blue))
    dx, dy = rng.randint(1, 2), rng.randint(4, 8)
    paint_text(canvas, rng.choice(TITLES), dx, dy, 2, PITCH, ink)
    for (key, value), (row, column) in zip(fields, slots, strict=True):
        x, y = column * TILE + dx, row * CELL + dy + rng.randint(-1, 1)
        paint_text(canvas, key.upper(), x, y, 2, PITCH, ink)
        paint_text(canvas, value, x + VALUE_INDENT, y, 2, PITCH, ink)
        mark(canvas, (x, y, x + VALUE_INDENT + text_size(value, 2, PITCH)[0], y + 2 * GLYPH_HEIGHT), key)
    return canvas
