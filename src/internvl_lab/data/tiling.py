"""Cut an image into tiles of one size, near its own aspect ratio: dynamic high resolution.

::

    image (w, h) ── choose_grid ──> (columns, rows) ── resize to (columns*S, rows*S) ──> crops, row by row
                                                    └─ resize to (S, S) ──> thumbnail, last, if there is more than one

S is the tile size. The default resize is torch's uint8 antialiased bicubic: 4-6 times faster than Pillow on one core
and at most 3 of 255 levels away from it; `resize: pillow` gives the authors' pixels exactly.
Source: InternVL 2.5, section 3.1; spec section 2.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from internvl_lab.config import TilingConfig

Pixels = NDArray[np.uint8]


@lru_cache(maxsize=256)
def candidate_grids(min_tiles: int, max_tiles: int) -> tuple[tuple[int, int], ...]:
    """List all (columns, rows) with min_tiles <= columns * rows <= max_tiles, fewest tiles first.

    The report does not order grids of equally many tiles, and the authors' order is that of a Python set; here fewer
    columns come first. With min_tiles = 1 this decides nothing: a ratio halfway between two grids of as many tiles is
    nearer to a smaller grid, so all golden vectors of the spec hold in either order.
    """
    grids = [(i, j) for i in range(1, max_tiles + 1) for j in range(1, max_tiles // i + 1) if i * j >= min_tiles]
    return tuple(sorted(grids, key=lambda grid: (grid[0] * grid[1], grid[0])))


@lru_cache(maxsize=16384)
def choose_grid(width: int, height: int, min_tiles: int, max_tiles: int, tile_size: int) -> tuple[int, int]:
    """Choose the tile grid whose aspect ratio is closest to the image's.

    Args:
        width, height: image size in pixels, > 0.
        min_tiles, max_tiles: bounds of columns * rows, thumbnail not counted; without a candidate the grid is (1, 1).
        tile_size: edge of a tile in pixels.

    Returns:
        (columns, rows).

    Raises:
        ValueError: a size or max_tiles below 1.
    Source: InternVL 2.5, section 3.1; ties as in the authors' `find_closest_aspect_ratio`: a later (larger) grid wins
        only if width * height exceeds half its area.
    """
    if min(width, height, max_tiles, tile_size) < 1:
        raise ValueError(f"width={width}, height={height}, max_tiles={max_tiles}, tile_size={tile_size}: all from 1")
    ratio = width / height
    best, best_difference = (1, 1), float("inf")
    for columns, rows in candidate_grids(min_tiles, max_tiles):
        difference = abs(ratio - columns / rows)
        large_enough = width * height > 0.5 * tile_size**2 * columns * rows
        if difference < best_difference or (difference == best_difference and large_enough):
            best, best_difference = (columns, rows), difference
    return best


def count_tiles(
    width: int, height: int, cfg: TilingConfig, max_tiles: int | None = None, thumbnail: bool | None = None
) -> int:
    """Count the tiles of an image of width x height pixels, thumbnail included.

    Args:
        max_tiles: limit without the thumbnail; None = `cfg.max_tiles`.
        thumbnail: whether more than one tile brings a thumbnail; None = `cfg.use_thumbnail`.
    """
    columns, rows = _grid(width, height, cfg, max_tiles)
    return columns * rows + _has_thumbnail(columns * rows, cfg, thumbnail)


def tile_budget(num_images: int, max_tiles: int) -> int:
    """Return the tile limit of each of `num_images` images of one sample: max(1, floor(max_tiles / num_images)).

    Raises:
        ValueError: num_images below 1.
    Source: InternVL 2.5, section 3.1.
    """
    if num_images < 1:
        raise ValueError(f"num_images={num_images} must be at least 1")
    return max(1, max_tiles // num_images)


def tile_image(
    image: Image.Image | Pixels, cfg: TilingConfig, max_tiles: int | None = None, thumbnail: bool | None = None
) -> Pixels:
    """Cut an RGB image into tiles, row by row, the thumbnail last.

    Args:
        image: mode RGB, or its pixels (H, W, 3) uint8; only read.
        max_tiles, thumbnail: as in `count_tiles`.

    Returns:
        (N, S, S, 3) uint8, writable, with N = `count_tiles` of the image and S = `cfg.tile_size`.

    Raises:
        ValueError: the image is not RGB.
    """
    if isinstance(image, Image.Image) and image.mode != "RGB":
        raise ValueError(f"tile_image needs mode RGB, not {image.mode}: transforms.decode_image converts")
    pixels = np.asarray(image)
    height, width, _ = pixels.shape
    columns, rows = _grid(width, height, cfg, max_tiles)
    edge = cfg.tile_size
    num_tiles, thumb = columns * rows, _has_thumbnail(columns * rows, cfg, thumbnail)
    resize = _RESIZERS[cfg.resize](pixels)
    whole = resize(columns * edge, rows * edge)
    if num_tiles == 1:
        return whole[None]
    tiles = np.empty((num_tiles + thumb, edge, edge, 3), np.uint8)
    crops = whole.reshape(rows, edge, columns, edge, 3).swapaxes(1, 2)
    tiles[:num_tiles].reshape(rows, columns, edge, edge, 3)[...] = crops
    if thumb:
        tiles[-1] = resize(edge, edge)
    return tiles


def _grid(width: int, height: int, cfg: TilingConfig, max_tiles: int | None) -> tuple[int, int]:
    """Choose the grid under a limit; a limit below `cfg.min_tiles` wins over it."""
    limit = cfg.max_tiles if max_tiles is None else max_tiles
    return choose_grid(width, height, min(cfg.min_tiles, limit), limit, cfg.tile_size)


def _has_thumbnail(num_tiles: int, cfg: TilingConfig, thumbnail: bool | None) -> bool:
    """Tell whether an image of `num_tiles` tiles gets a thumbnail."""
    return num_tiles != 1 and (cfg.use_thumbnail if thumbnail is None else thumbnail)


def _torch_resizer(pixels: Pixels) -> Callable[[int, int], Pixels]:
    """Return resize(width, height) -> (height, width, 3) uint8 of pixels (H, W, 3)."""
    with warnings.catch_warnings():  # "not writable": the array is only read, and a copy of a scanned page costs 15 ms
        warnings.simplefilter("ignore", UserWarning)
        batch = torch.from_numpy(pixels)[None]
    # The batch axis must be made before the permutation: only then are the strides those of channels-last memory,
    # which torch resizes 1.3-2.8 times faster, to the same pixels.
    channels_last = batch.permute(0, 3, 1, 2)

    def resize(width: int, height: int) -> Pixels:
        """Return the picture at another size: (height, width, 3) uint8."""
        if pixels.shape == (height, width, 3):
            return pixels.copy()
        scaled = F.interpolate(channels_last, size=(height, width), mode="bicubic", antialias=True)
        result: Pixels = scaled[0].permute(1, 2, 0).numpy()
        return result

    return resize


def _pillow_resizer(pixels: Pixels) -> Callable[[int, int], Pixels]:
    """Return the same as `_torch_resizer`, with Pillow's bicubic filter: the authors' pixels."""
    image = Image.fromarray(pixels)

    def resize(width: int, height: int) -> Pixels:
        """Return the picture at another size: (height, width, 3) uint8."""
        if image.size == (width, height):
            return pixels.copy()
        return np.array(image.resize((width, height), Image.Resampling.BICUBIC))

    return resize


_RESIZERS = {"torch": _torch_resizer, "pillow": _pillow_resizer}
