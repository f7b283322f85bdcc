"""Scenes of coloured shapes in the cells of a grid, the stage of most tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from internvl_lab.data.miniworld.canvas import Canvas, Color, background, paint_shape
from internvl_lab.data.miniworld.marks import mark
from internvl_lab.data.miniworld.vocabulary import COLORS, SHAPES

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Thing:
    """Name an object: what it is, not where."""

    color: str
    shape: str

    @property
    def name(self) -> str:
        """Return colour and shape, for example `red circle`."""
        return f"{self.color} {self.shape}"


@dataclass(frozen=True)
class Placed:
    """Put a thing into a cell (0-based row and column) and a pixel box (x0, y0, x1, y1), end exclusive."""

    thing: Thing
    row: int
    column: int
    box: Box
    half: str = ""
    """Words for the halves of the picture that it lies in, as labels for who pretrains an encoder; may be empty."""


@dataclass(frozen=True)
class Grid:
    """Divide a picture of `width` x `height` pixels into cells."""

    width: int
    height: int
    rows: int
    columns: int


@dataclass(frozen=True)
class Scene:
    """Hold the placed things in reading order, and the seed of colours and noise."""

    grid: Grid
    things: tuple[Placed, ...]
    paint_seed: int

    @property
    def signature(self) -> str:
        """Return what makes this scene differ from others: the grid and each thing with its cell."""
        return f"{self.grid.rows}x{self.grid.columns}:{self.description}"

    @property
    def description(self) -> str:
        """List the things with row and column counted from 1, in reading order."""
        return "; ".join(f"{p.thing.name} at {p.row + 1} {p.column + 1}" for p in self.things)

    @property
    def caption(self) -> str:
        """Name the things in reading order, for example `a red circle, a blue star`."""
        return ", ".join(f"{article(p.thing.color)} {p.thing.name}" for p in self.things)

    @property
    def table(self) -> str:
        """Write down every cell, `none` for empty ones: commas inside a row, semicolons between rows."""
        cells = [["none"] * self.grid.columns for _ in range(self.grid.rows)]
        for placed in self.things:
            cells[placed.row][placed.column] = placed.thing.name
        return "; ".join(", ".join(row) for row in cells)

    def count(self, shape: str) -> int:
        """Count the things of a shape."""
        return sum(p.thing.shape == shape for p in self.things)


def article(word: str) -> str:
    """Return the indefinite article of a word."""
    return "an" if word[0] in "aeiou" else "a"


def random_thing(rng: Random) -> Thing:
    """Draw a colour and a shape."""
    return Thing(rng.choice(list(COLORS)), rng.choice(SHAPES))


def random_things(rng: Random, number: int, avoid: Sequence[Thing] = ()) -> list[Thing]:
    """Draw `number` different things, none of `avoid`."""
    things: list[Thing] = []
    while len(things) < number:
        thing = random_thing(rng)
        if thing not in things and thing not in avoid:
            things.append(thing)
    return things


def random_size(rng: Random, wide_share: float = 0.12) -> tuple[int, int]:
    """Draw (width, height): mostly near square, 100 to 150 pixels; sometimes 2:1, 1:2 or 3:1."""
    if rng.random() >= wide_share:
        side = rng.randint(100, 146)
        return side, max(100, min(150, side + rng.randint(-8, 8)))
    long, short = rng.choice(((2, 1), (1, 2), (2, 1), (1, 2), (3, 1)))
    return long * 112 + rng.randint(-6, 6), short * 112 + rng.randint(-3, 3)


def make_grid(size: tuple[int, int], cells_per_tile: int) -> Grid:
    """Divide a picture so that each square part of it has `cells_per_tile` cells a side."""
    width, height = size
    edge = min(width, height)
    return Grid(width, height, round(height / edge) * cells_per_tile, round(width / edge) * cells_per_tile)


def place(rng: Random, grid: Grid, row: int, column: int, thing: Thing, fill: tuple[float, float]) -> Placed:
    """Put a thing somewhere inside its cell, its edge `fill` (from, to) of the cell's shorter side."""
    cell_width, cell_height = grid.width / grid.columns, grid.height / grid.rows
    edge = int(rng.uniform(*fill) * min(cell_width, cell_height))
    x = int(column * cell_width + rng.random() * (cell_width - edge))
    y = int(row * cell_height + rng.random() * (cell_height - edge))
    return Placed(thing, row, column, (x, y, x + edge, y + edge))


def arrange(rng: Random, grid: Grid, things: Sequence[Thing], fill: tuple[float, float] = (0.55, 0.85)) -> Scene:
    """Give each thing a cell of its own; the scene lists them in reading order."""
    cells = sorted(rng.sample(range(grid.rows * grid.columns), len(things)))
    placed = tuple(
        place(rng, grid, *divmod(cell, grid.columns), thing, fill) for cell, thing in zip(cells, things, strict=True)
    )
    return Scene(grid, placed, rng.getrandbits(32))


def dark_color(rng: Random) -> Color:
    """Draw a dark background, against which all colours of the vocabulary stand out."""
    level = rng.randint(14, 48)
    return (level + rng.randint(-6, 12), level + rng.randint(-6, 12), level + rng.randint(-6, 12))


def shade(rng: Random, color: str) -> Color:
    """Vary a colour of the vocabulary slightly."""
    red, green, blue = (max(0, min(255, channel + rng.randint(-10, 10))) for channel in COLORS[color])
    return red, green, blue


def paint_scene(scene: Scene) -> Canvas:
    """Paint a scene on a dark background; returns (H, W, 3) uint8."""
    rng = Random(scene.paint_seed)
    canvas = background(scene.grid.width, scene.grid.height, dark_color(rng), rng.getrandbits(20))
    for placed in scene.things:
        paint_shape(canvas, placed.thing.shape, placed.box, shade(rng, placed.thing.color))
        mark(canvas, placed.box, f"{placed.thing.name} {placed.half}".strip())
    return canvas
