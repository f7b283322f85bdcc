from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from internvl_lab.data.miniworld import canvas as c
from internvl_lab.data.miniworld.vocabulary import SHAPES


def test_background_is_the_colour_with_slight_noise() -> None:
    canvas = c.background(120, 100, (40, 60, 80), noise_at=123456)
    assert canvas.shape == (100, 120, 3)
    assert canvas.dtype == np.uint8
    difference = canvas.astype(int) - np.array([40, 60, 80])
    assert abs(difference).max() == c.NOISE_AMPLITUDE
    assert abs(difference.mean()) < 0.5


def test_background_depends_on_its_noise_number_alone() -> None:
    first, again, other = (c.background(50, 50, (30, 30, 30), number) for number in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_background_does_not_overflow_at_the_limits() -> None:
    assert c.background(460, 460, (6, 6, 249), 2**30).shape == (460, 460, 3)
    assert c.background(64, 64, (6, 6, 6), 0).max() <= 12
    assert c.background(64, 64, (249, 249, 249), 0).min() >= 243


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_touches_all_sides_of_its_box(shape: str) -> None:
    mask = c.shape_mask(shape, 40, 32)
    assert mask.shape == (32, 40)
    for line in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
        assert line.max() > 0


def test_shapes_are_told_apart_at_twenty_pixels() -> None:
    masks = [c.shape_mask(shape, 20, 20).astype(int) for shape in SHAPES]
    for i, a in enumerate(masks):
        for b in masks[i + 1 :]:
            assert abs(a - b).mean() > 0.15 * 255


def test_area_of_the_circle() -> None:
    assert c.shape_mask("circle", 60, 60).mean() / 255 == pytest.approx(np.pi / 4, abs=0.01)


def test_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="hexagon"):
        c.shape_mask("hexagon", 20, 20)


def test_paint_mask_blends_and_cuts_off_at_the_border() -> None:
    canvas = np.zeros((4, 4, 3), dtype=np.uint8)
    mask = np.full((3, 3), 255, dtype=np.uint8)
    c.paint_mask(canvas, mask, -2, 3, (200, 100, 50))
    assert canvas[3, 0].tolist() == [200, 100, 50]
    assert canvas.any(axis=2).sum() == 1
    c.paint_mask(canvas, mask // 2, 2, 0, (200, 100, 50))
    assert canvas[0, 2].tolist() == [127 * 200 // 255, 127 * 100 // 255, 127 * 50 // 255]


def test_paint_mask_outside_changes_nothing() -> None:
    canvas = np.zeros((4, 4, 3), dtype=np.uint8)
    for x, y in ((9, 0), (0, 9), (-9, 0), (0, -9)):
        c.paint_mask(canvas, np.full((3, 3), 255, dtype=np.uint8), x, y, (255, 255, 255))
    assert not canvas.any()


def test_paint_shape_stays_in_its_box() -> None:
    canvas = np.zeros((20, 20, 3), dtype=np.uint8)
    c.paint_shape(canvas, "square", (2, 4, 9, 10), (1, 2, 3))
    assert (canvas[4:10, 2:9] == (1, 2, 3)).all()
    assert np.count_nonzero(canvas.any(axis=2)) == 7 * 6


def test_text_covers_its_size() -> None:
    canvas = np.zeros((40, 90, 3), dtype=np.uint8)
    c.paint_text(canvas, "H H", 3, 5, scale=2, pitch=14, color=(255, 255, 255))
    rows, columns = np.nonzero(canvas.any(axis=2))
    width, height = c.text_size("H H", 2, 14)
    assert (columns.min(), columns.max() + 1) == (3, 3 + width)
    assert (rows.min(), rows.max() + 1) == (5, 5 + height)
    assert not canvas[:, 3 + 14 : 3 + 28].any()  # the space


def test_rectangle() -> None:
    canvas = np.zeros((5, 5, 3), dtype=np.uint8)
    c.paint_rectangle(canvas, (1, 2, 3, 4), (9, 9, 9))
    assert np.count_nonzero(canvas.any(axis=2)) == 4


def test_jpeg_keeps_the_picture() -> None:
    canvas = c.background(112, 96, (40, 60, 80), 5)
    c.paint_shape(canvas, "circle", (20, 20, 60, 60), (224, 36, 36))
    with Image.open(io.BytesIO(c.encode_jpeg(canvas))) as image:
        assert (image.format, image.size) == ("JPEG", (112, 96))
        decoded = np.asarray(image, dtype=int)
    assert abs(decoded - canvas).mean() < 5
    assert abs(decoded[40, 40] - (224, 36, 36)).max() < 20
