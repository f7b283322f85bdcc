"""Supervise visual tokens with the words for what they show: dense targets for pretraining a small encoder.

A record may carry `regions`: for each image a list of [x0, y0, x1, y1, words] in pixels. Where a visual token looks at
a region, the model is asked, at that token's own position, for one of the region's words, drawn at random anew in each
epoch. Thousands of small targets a pack teach an encoder from random weights in minutes what a handful of answer tokens
teaches in hours (measured: after 55,000 samples with answers alone the mean score was 0.30 against 0.20 blind).

    image ─ grid of tiles ─> cells of visual tokens, tile by tile, row-major, thumbnail last ─> word id or IGNORE_INDEX
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from internvl_lab.config import TilingConfig
from internvl_lab.constants import IGNORE_INDEX
from internvl_lab.data.tiling import choose_grid
from internvl_lab.text.template import ChatTemplate, Ids

EMPTY_WORD = "none"
EMPTY_SHARE = 0.25
"""Share of the cells without region that are asked for `none`: most cells are empty and would drown the rest."""
MAX_REGIONS = 3
"""Cells with more regions than this are not asked: what they show is too small to tell apart."""

Floats = NDArray[np.float64]


class RegionTargets:
    """Turn regions into targets of visual tokens.

    Args:
        template: its tokenizer gives the words' ids.
        tiling: how images are cut; visual tokens of a tile form a square grid.
    """

    def __init__(self, template: ChatTemplate, tiling: TilingConfig) -> None:
        self.template, self.tiling = template, tiling
        self._ids: dict[str, int | None] = {}

    def of_image(
        self,
        size: tuple[int, int],
        regions: Sequence[Sequence[Any]],
        limit: int,
        thumbnail: bool,
        rng: np.random.Generator,
    ) -> Ids:
        """Choose a target for every visual token of one image.

        Args:
            size: (width, height) of the image in pixels.
            regions: [x0, y0, x1, y1, words] each.
            limit, thumbnail: tile limit and whether a thumbnail may follow, as the image is tiled.
            rng: draws among the words of a cell.
        Returns:
            (N * V,) int32 token ids in the order of the visual tokens, IGNORE_INDEX = no target.
        """
        columns, rows = choose_grid(*size, self.tiling.min_tiles, limit, self.tiling.tile_size)
        edge = round(self.tiling.num_visual_tokens**0.5)
        shapes = [(columns, rows)] + ([(1, 1)] if thumbnail and columns * rows > 1 else [])
        parts = [self._of_grid(size, regions, shape, edge, rng) for shape in shapes]
        return np.concatenate(parts)

    def _of_grid(
        self,
        size: tuple[int, int],
        regions: Sequence[Sequence[Any]],
        shape: tuple[int, int],
        edge: int,
        rng: np.random.Generator,
    ) -> Ids:
        """Choose targets of a (columns, rows) grid of tiles with edge x edge visual tokens each: (N * V,) int32."""
        columns, rows = shape
        seen = _looks_at(size, regions, columns * edge, rows * edge)
        words = [str(region[4]).split() for region in regions]
        cells = np.full(seen.shape[:2], IGNORE_INDEX, np.int32)
        for row, column in np.ndindex(*cells.shape):
            cells[row, column] = self._draw([words[k] for k in np.flatnonzero(seen[row, column])], rng)
        by_tile = cells.reshape(rows, edge, columns, edge).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(by_tile).reshape(-1)

    def _draw(self, choices: Sequence[Sequence[str]], rng: np.random.Generator) -> int:
        """Draw a region, then one of its words; return the id or IGNORE_INDEX."""
        if not choices:
            word = EMPTY_WORD if rng.random() < EMPTY_SHARE else None
        elif len(choices) > MAX_REGIONS:
            word = None
        else:
            region = choices[int(rng.integers(len(choices)))]
            word = region[int(rng.integers(len(region)))]
        found = None if word is None else self._id(word)
        return IGNORE_INDEX if found is None else found

    def _id(self, word: str) -> int | None:
        """Return the id of a word that is one token (a character as it stands, a word as inside a sentence)."""
        if word not in self._ids:
            text = word if len(word) == 1 else f" {word}"
            ids = self.template.tokenizer.encode(text, add_special_tokens=False)
            self._ids[word] = int(ids[0]) if len(ids) == 1 else None
        return self._ids[word]


def _looks_at(
    size: tuple[int, int], regions: Sequence[Sequence[Any]], columns: int, rows: int
) -> NDArray[np.bool_]:
    """Say which cell of a (rows, columns) grid looks at which of K regions: (rows, columns, K) bool.

    A cell looks at a region when its centre lies in it, or the region's centre lies in the cell.
    """
    boxes = np.array([region[:4] for region in regions], dtype=np.float64).reshape(-1, 4)
    boxes = boxes / np.array([size[0], size[1], size[0], size[1]]) * np.array([columns, rows, columns, rows])
    horizontal = _overlaps(columns, boxes[:, 0], boxes[:, 2])
    vertical = _overlaps(rows, boxes[:, 1], boxes[:, 3])
    inside = vertical[0][:, None] & horizontal[0][None]
    around = vertical[1][:, None] & horizontal[1][None]
    return inside | around


def _overlaps(count: int, low: Floats, high: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Along one axis with `count` cells: (cell's centre in the region, region's centre in the cell), (count, K) each."""
    cells = np.arange(count)[:, None]
    centre = (low + high) / 2
    return (low <= cells + 0.5) & (cells + 0.5 < high), (cells <= centre) & (centre < cells + 1)


def regions_by_image(metadata: Mapping[str, Any], num_images: int) -> list[Sequence[Sequence[Any]]]:
    """Return a record's regions, one list an image; empty where it has none or not as many as images."""
    regions = metadata.get("regions") or []
    return list(regions) if len(regions) == num_images else []
