"""Pictures of miniworld with labels for probes: what is in them, how many, which character.

One picture answers four questions, so that one encoder pass serves four probes: `count` things of one `shape` and
`color`, and one `glyph`, each in a cell of its own. A combination of the four belongs to one split only (one eighth
are tested), so that a head is scored on combinations it never saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from internvl_lab.config import ProbeWorldConfig
from internvl_lab.data.miniworld.build import source_hash
from internvl_lab.data.miniworld.canvas import Canvas, paint_text, shape_mask, text_size
from internvl_lab.data.miniworld.draft import bucket
from internvl_lab.data.miniworld.scene import Grid, Scene, Thing, arrange, paint_scene, place, random_things
from internvl_lab.data.miniworld.vocabulary import COLORS, OCR_ALPHABET, SHAPES
from internvl_lab.probing.pictures import PictureSet, hash_of

PICTURE_SIZE = 112
"""Edge in pixels: one tile of the mini encoders."""
CELLS = 3
"""Cells a side."""
COUNTS = tuple(str(number) for number in range(1, 7))
TEST_BUCKETS = (0,)
GLYPH_SCALES = (3, 4)
GLYPH_COLOR = (206, 206, 206)

TARGETS: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "color": tuple(COLORS),
    "count": COUNTS,
    "glyph": tuple(OCR_ALPHABET),
}
CLASSES = ("background", *SHAPES)
"""Classes of the segmentation masks."""


@dataclass(frozen=True)
class Labelled:
    """Hold one drawn picture before it is painted."""

    scene: Scene
    glyph: str
    glyph_scale: int
    glyph_at: tuple[int, int]
    """Left upper corner in pixels."""

    @property
    def combination(self) -> str:
        """Return what decides the labels."""
        thing = self.scene.things[0].thing
        return f"{len(self.scene.things)} {thing.name} {self.glyph}"

    @property
    def labels(self) -> tuple[int, ...]:
        """Return the class index of each target, in the order of TARGETS."""
        thing = self.scene.things[0].thing
        words = (thing.shape, thing.color, str(len(self.scene.things)), self.glyph)
        return tuple(classes.index(word) for classes, word in zip(TARGETS.values(), words, strict=True))

    def paint(self) -> Canvas:
        """Paint the picture: (H, W, 3) uint8."""
        canvas = paint_scene(self.scene)
        paint_text(canvas, self.glyph, *self.glyph_at, self.glyph_scale, 0, GLYPH_COLOR)
        return canvas


def draw_labelled(split: str, index: int, seed: int) -> Labelled:
    """Draw picture `index` of a split (`train` or `test`), the same in any order."""
    rng = Random(f"probe|{seed}|{split}|{index}")
    while True:
        drawn = _draw(rng)
        if (bucket("probe", drawn.combination) in TEST_BUCKETS) == (split == "test"):
            return drawn


def _draw(rng: Random) -> Labelled:
    """Draw a picture of any split."""
    thing = Thing(rng.choice(list(COLORS)), rng.choice(SHAPES))
    grid = Grid(PICTURE_SIZE, PICTURE_SIZE, CELLS, CELLS)
    cells = rng.sample(range(CELLS * CELLS), int(rng.choice(COUNTS)) + 1)
    placed = tuple(place(rng, grid, *divmod(cell, CELLS), thing, (0.55, 0.85)) for cell in sorted(cells[1:]))
    glyph, scale = rng.choice(OCR_ALPHABET), rng.choice(GLYPH_SCALES)
    width, height = text_size(glyph, scale, 0)
    row, column = divmod(cells[0], CELLS)
    edge = PICTURE_SIZE / CELLS
    at = (int(column * edge + rng.random() * (edge - width)), int(row * edge + rng.random() * (edge - height)))
    return Labelled(Scene(grid, placed, rng.getrandbits(32)), glyph, scale, at)


def world_pictures(config: ProbeWorldConfig, split: str) -> PictureSet:
    """Give the pictures of a split as a set with four targets; they are painted when read."""
    number = config.num_train if split == "train" else config.num_test
    labels = np.array([draw_labelled(split, i, config.seed).labels for i in range(number)], np.int64)
    return PictureSet(
        "miniworld" if split == "test" else f"miniworld {split}",
        tuple(f"{split}-{i:06d}" for i in range(number)),
        labels,
        TARGETS,
        lambda i: Image.fromarray(draw_labelled(split, i, config.seed).paint()),
        hash_of("miniworld", split, number, config.seed, _source()),
    )


@lru_cache(maxsize=1)
def _source() -> str:
    return source_hash()


def draw_masked(split: str, index: int, seed: int) -> Scene:
    """Draw scene `index` of a split for segmentation: two to five different things; splits are disjoint by content."""
    rng = Random(f"probe masks|{seed}|{split}|{index}")
    while True:
        grid = Grid(PICTURE_SIZE, PICTURE_SIZE, CELLS, CELLS)
        scene = arrange(rng, grid, random_things(rng, rng.randint(2, 5)))
        if (bucket("probe masks", scene.caption) in TEST_BUCKETS) == (split == "test"):
            return scene


def paint_masked(scene: Scene) -> tuple[Canvas, NDArray[np.uint8]]:
    """Paint a scene (H, W, 3) and its mask (H, W): 0 = background, else the shape, where it covers half a pixel."""
    mask = np.zeros((scene.grid.height, scene.grid.width), np.uint8)
    for placed in scene.things:
        x0, y0, x1, y1 = placed.box
        region = mask[y0:y1, x0:x1]
        region[shape_mask(placed.thing.shape, x1 - x0, y1 - y0) > 127] = CLASSES.index(placed.thing.shape)
    return paint_scene(scene), mask
