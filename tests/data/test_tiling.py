"""Dynamic high resolution: the golden vectors of spec section 2, tile order, and the resize."""

from __future__ import annotations

import warnings
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from internvl_lab.config import TilingConfig
from internvl_lab.data.tiling import candidate_grids, choose_grid, count_tiles, tile_budget, tile_image

GOLDEN = {
    (448, 448): [(1, 1), (1, 1), (1, 1)],
    (640, 480): [(3, 2), (4, 3), (4, 3)],
    (800, 1300): [(2, 3), (2, 3), (3, 5)],
    (1000, 1000): [(2, 2), (3, 3), (3, 3)],
    (633, 633): [(1, 1), (1, 1), (1, 1)],
    (634, 634): [(2, 2), (2, 2), (2, 2)],
    (896, 448): [(2, 1), (2, 1), (2, 1)],
    (1920, 1080): [(2, 1), (4, 2), (5, 3)],
    (3000, 200): [(6, 1), (12, 1), (15, 1)],
    (560, 448): [(1, 1), (4, 3), (5, 4)],
    (4000, 3200): [(3, 2), (4, 3), (5, 4)],
}
"""Size to grids for max_tiles 6, 12 and 24, computed with the authors' code."""


def smooth_image(width: int, height: int) -> Image.Image:
    """A picture with structure at several scales, and nothing a bicubic filter would ring on."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = np.stack([np.sin(9 * x + 3 * y), np.cos(7 * x * y), np.sin(20 * y)], axis=-1)
    return Image.fromarray((127 + 120 * waves).astype(np.uint8))


@pytest.mark.parametrize("size", GOLDEN, ids=str)
def test_golden_grids(size: tuple[int, int]) -> None:
    assert [choose_grid(*size, 1, max_tiles, 448) for max_tiles in (6, 12, 24)] == GOLDEN[size]


@pytest.mark.parametrize(("max_tiles", "count"), [(6, 14), (12, 35), (24, 84), (36, 140)])
def test_number_of_candidates(max_tiles: int, count: int) -> None:
    grids = candidate_grids(1, max_tiles)
    assert len(set(grids)) == len(grids) == count
    assert [i * j for i, j in grids] == sorted(i * j for i, j in grids)


def test_order_of_equally_many_tiles_decides_nothing() -> None:
    """Halfway between two grids of the same number of tiles there is always a nearer, smaller one."""
    grids = candidate_grids(1, 36)
    for (i, j), (k, m) in combinations(grids, 2):
        if i * j == k * m:
            middle = (i / j + k / m) / 2
            distance = abs(middle - i / j)
            assert any(abs(middle - c / r) < distance - 1e-9 for c, r in grids if c * r < i * j)


def test_grid_respects_the_minimum_and_falls_back_to_one_tile() -> None:
    assert choose_grid(448, 448, 4, 12, 448) == (2, 2)
    assert choose_grid(448, 448, 5, 4, 448) == (1, 1)


@pytest.mark.parametrize("arguments", [(0, 5, 1, 6, 448), (5, 0, 1, 6, 448), (5, 5, 1, 0, 448), (5, 5, 1, 6, 0)])
def test_impossible_sizes_are_refused(arguments: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="all from 1"):
        choose_grid(*arguments)


def test_tile_counts_with_and_without_thumbnail() -> None:
    cfg = TilingConfig()
    assert count_tiles(640, 480, cfg) == 13
    assert count_tiles(640, 480, cfg, max_tiles=6) == 7
    assert count_tiles(640, 480, cfg, thumbnail=False) == 12
    assert count_tiles(448, 448, cfg) == 1
    assert count_tiles(640, 480, TilingConfig(use_thumbnail=False)) == 12
    assert count_tiles(640, 480, TilingConfig(min_tiles=4), max_tiles=1) == 1


@pytest.mark.parametrize(("num_images", "budget"), [(1, 12), (2, 6), (5, 2), (12, 1), (40, 1)])
def test_budget_of_many_images(num_images: int, budget: int) -> None:
    assert tile_budget(num_images, 12) == budget


def test_budget_of_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="num_images=0"):
        tile_budget(0, 12)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 12), st.sampled_from(["torch", "pillow"]))
@settings(max_examples=25)
def test_tiles_are_as_many_as_counted(width: int, height: int, max_tiles: int, resize: str) -> None:
    cfg = TilingConfig(tile_size=16, resize=resize)
    tiles = tile_image(Image.new("RGB", (width, height), (9, 90, 200)), cfg, max_tiles)
    assert tiles.shape == (count_tiles(width, height, cfg, max_tiles), 16, 16, 3)
    assert (tiles == (9, 90, 200)).all()


@pytest.mark.parametrize("resize", ["torch", "pillow"])
def test_tiles_come_row_by_row_and_the_thumbnail_last(resize: str) -> None:
    image = smooth_image(48, 32)
    cfg = TilingConfig(tile_size=16, max_tiles=6, resize=resize)
    tiles = tile_image(image, cfg)
    pixels = np.asarray(image)
    assert len(tiles) == 7
    for number in range(6):
        row, column = divmod(number, 3)
        crop = pixels[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
        assert np.array_equal(tiles[number], crop), "48 x 32 fits the 3 x 2 grid: no resize, so the very pixels"
    thumbnail = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(tiles[6].astype(int) - thumbnail).max() <= (3 if resize == "torch" else 0)


@pytest.mark.parametrize("resize", ["torch", "pillow"])
def test_image_of_the_tile_size_is_not_resized(resize: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = smooth_image(112, 112)
    monkeypatch.setattr("torch.nn.functional.interpolate", None)
    monkeypatch.setattr(Image.Image, "resize", None)
    tiles = tile_image(image, TilingConfig(tile_size=112, resize=resize))
    assert np.array_equal(tiles, np.asarray(image)[None])


@pytest.mark.parametrize("size", [(640, 480), (301, 97), (50, 1200)], ids=str)
def test_torch_resize_stays_within_three_levels_of_pillow(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    for image in (smooth_image(*size), Image.fromarray(noise)):
        fast, exact = (
            tile_image(image, TilingConfig(tile_size=112, resize=r)).astype(int) for r in ("torch", "pillow")
        )
        assert np.abs(fast - exact).max() <= 3
        # Measured: 0.002-0.009, and 0.047 where the scale is a ratio of small numbers (640 to 448), which makes ties.
        assert np.abs(fast - exact).mean() < 0.06


@pytest.mark.parametrize("resize", ["torch", "pillow"])
@pytest.mark.parametrize("size", [(64, 64), (100, 40)], ids=str)
def test_tiles_are_writable_and_the_image_is_left_alone(resize: str, size: tuple[int, int]) -> None:
    image = smooth_image(*size)
    before = image.tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiles = tile_image(image, TilingConfig(tile_size=64, resize=resize))
    tiles[...] = 0
    assert image.tobytes() == before


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 24), st.integers(1, 24))
def test_grid_is_the_closest_of_all(width: int, height: int, min_tiles: int, max_tiles: int) -> None:
    min_tiles = min(min_tiles, max_tiles)
    columns, rows = choose_grid(width, height, min_tiles, max_tiles, 448)
    assert min_tiles <= columns * rows <= max_tiles
    grids = [(c, r) for c in range(1, 25) for r in range(1, 25) if min_tiles <= c * r <= max_tiles]
    assert abs(width / height - columns / rows) == min(abs(width / height - c / r) for c, r in grids)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 12), st.booleans())
@settings(max_examples=30)
def test_pixels_tile_like_their_image(width: int, height: int, max_tiles: int, thumbnail: bool) -> None:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    pixels.flags.writeable = False
    for resize in ("torch", "pillow"):
        cfg = TilingConfig(tile_size=16, resize=resize)
        tiles = tile_image(pixels, cfg, max_tiles, thumbnail)
        assert np.array_equal(tiles, tile_image(Image.fromarray(pixels), cfg, max_tiles, thumbnail))
        assert len(tiles) == count_tiles(width, height, cfg, max_tiles, thumbnail) and tiles.flags.writeable


def test_other_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="not L"):
        tile_image(Image.new("L", (5, 5)), TilingConfig())
