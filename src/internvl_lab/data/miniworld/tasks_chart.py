"""The task chart: bars of whole heights over a ruled scale."""

from __future__ import annotations

from random import Random

from internvl_lab.data.miniworld.canvas import Canvas, background, paint_rectangle, paint_text
from internvl_lab.data.miniworld.draft import Draft, Question
from internvl_lab.data.miniworld.marks import mark
from internvl_lab.data.miniworld.scene import dark_color, shade
from internvl_lab.data.miniworld.vocabulary import COLORS

VALUE_PROMPTS = ("What is the value of the {} bar?", "How high is the {} bar?")
TALLEST_PROMPTS = ("Which bar is the tallest?", "What color is the highest bar?")
SHORTEST_PROMPTS = ("Which bar is the shortest?", "What color is the lowest bar?")
BARS_PROMPT = "List every bar."

MAX_VALUE = 7
UNIT = 14
"""Pixels of one unit of the scale: one patch of the encoder; seven units and the floor fill a tile of 112 pixels."""
FLOOR = 12
"""Pixels below the bars."""
MARGIN = 10
"""Width in pixels of the axis with its labels."""


def _questions(rng: Random, bars: list[tuple[str, int]]) -> list[Question]:
    """Ask for values, and for the extreme bar where it is the only one; three of five first questions are values."""
    values = [
        Question(rng.choice(VALUE_PROMPTS).format(color), str(value)) for color, value in rng.sample(bars, len(bars))
    ]
    heights = [value for _, value in bars]
    extremes = []
    for prompts, height in ((TALLEST_PROMPTS, max(heights)), (SHORTEST_PROMPTS, min(heights))):
        if heights.count(height) == 1:
            extremes.append(Question(rng.choice(prompts), bars[heights.index(height)][0]))
    rng.shuffle(extremes)
    if extremes and rng.random() < 0.4:
        return extremes + values
    return [values[0], *extremes, *values[1:]]


def chart(rng: Random, dense: bool) -> Draft:
    """Draw three to five bars of different colours; ask for a value or for the tallest or shortest bar."""
    del dense
    colors = rng.sample(list(COLORS), rng.randint(3, 5))
    bars = [(color, rng.randint(1, MAX_VALUE)) for color in colors]
    wide = rng.random() < 0.08
    size = ((224 if wide else 112) + rng.randint(-2, 8), 112 + rng.randint(-2, 4))
    seed = rng.getrandbits(32)
    listing = ", ".join(f"{color} {value}" for color, value in bars)
    return Draft(
        questions=tuple(_questions(rng, bars)),
        combinations=(listing,),
        dense=(Question(BARS_PROMPT, listing),),
        sizes=(size,),
        scenes=("; ".join(f"{color} bar {value}" for color, value in bars),),
        paint=lambda: (_paint_chart(size, bars, seed),),
    )


def _paint_chart(size: tuple[int, int], bars: list[tuple[str, int]], seed: int) -> Canvas:
    """Paint grid lines one unit apart, labels at 2, 4 and 6, and the bars; returns (H, W, 3) uint8."""
    rng = Random(seed)
    width, height = size
    paper = dark_color(rng)
    canvas = background(width, height, paper, rng.getrandbits(20))
    base = height - FLOOR
    for value in range(MAX_VALUE + 1):
        y = base - value * UNIT
        tone = paper[0] + (90 if value % 2 == 0 else 36)
        paint_rectangle(canvas, (MARGIN - 2, y, width, y + 1), (tone, tone, tone))
        if value in (2, 4, 6):
            paint_text(canvas, str(value), 1, max(0, y - 3), 1, 6, (170, 170, 170))
    slot = (width - MARGIN) / len(bars)
    for position, (color, value) in enumerate(bars):
        fill = int(slot * rng.uniform(0.55, 0.8))
        x = int(MARGIN + position * slot + rng.uniform(0.2, 0.8) * (slot - fill))
        bar = (x, base - value * UNIT, x + fill, base)
        paint_rectangle(canvas, bar, shade(rng, color))
        mark(canvas, bar, f"{color} {value}")
    return canvas
