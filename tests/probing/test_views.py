import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from internvl_lab.probing.views import centre_box, random_box, square_view, view_rng


def picture(width, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (28, 28), (31, 40), (300, 28)])
@pytest.mark.parametrize("rng", [None, 3])
def test_any_size_becomes_the_square(size, rng):
    view = square_view(picture(*size), 28, None if rng is None else np.random.default_rng(rng))
    assert view.shape == (3, 28, 28)
    assert view.dtype == torch.uint8


def test_a_picture_of_the_right_size_is_left_alone():
    image = picture(28, 28)
    assert torch.equal(square_view(image, 28), torch.from_numpy(np.array(image)).permute(2, 0, 1))


def test_the_centre_equals_resize_then_crop():
    """The authors' order of operations on a smooth picture, to within 2 levels (their rounding moves it by a pixel)."""
    x, y = np.meshgrid(np.arange(90), np.arange(60))
    image = Image.fromarray(np.stack([x * 2, y * 3, x + y], -1).astype(np.uint8))
    resized = image.resize((42, 28), Image.Resampling.BICUBIC).crop((7, 0, 35, 28))
    expected = torch.from_numpy(np.array(resized)).permute(2, 0, 1).int()
    assert (square_view(image, 28).int() - expected).abs().max() <= 2


@given(st.integers(1, 900), st.integers(1, 900), st.integers(0, 99))
def test_random_boxes_lie_inside_and_have_the_published_shape(width, height, seed):
    left, top, right, bottom = random_box((width, height), np.random.default_rng(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    if min(width, height) > 100 and max(width, height) < 1.3 * min(width, height):
        assert 0.7 < (right - left) / (bottom - top) < 1.4
        assert (right - left) * (bottom - top) >= 0.07 * width * height


def test_the_centre_is_the_largest_square():
    assert centre_box((90, 60)) == (15, 0, 75, 60)
    assert centre_box((60, 91)) == (0, 15.5, 60, 75.5)


def test_a_view_depends_on_seed_key_and_number_alone():
    draws = {(s, k, v): view_rng(s, k, v).random() for s in (0, 1) for k in ("a", "b") for v in (0, 1)}
    assert len(set(draws.values())) == len(draws)
    assert draws[0, "a", 1] == view_rng(0, "a", 1).random()
