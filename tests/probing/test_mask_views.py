import colorsys

import numpy as np
import pytest
import torch
from PIL import Image

from internvl_lab.errors import SampleError
from internvl_lab.models.pixels import normalise
from internvl_lab.probing.mask_views import TrainingMasks, jitter, scaled_size, training_view, window_view
from internvl_lab.probing.masks import IGNORED, MaskSet


def pair(width=60, height=40):
    """A picture whose red channel is 40 x its class."""
    mask = (np.arange(width)[None] * 4 // width + np.zeros((height, 1))).astype(np.uint8)
    pixels = np.stack([mask * 40, mask * 0 + 7, mask * 0], -1)
    return Image.fromarray(pixels), mask


@pytest.mark.parametrize("seed", range(12))
def test_picture_and_mask_stay_together(seed, monkeypatch):
    monkeypatch.setattr("internvl_lab.probing.mask_views.jitter", lambda image, rng: image)
    pixels, classes = training_view(*pair(), 28, np.random.default_rng(seed))
    assert pixels.shape == (3, 28, 28)
    assert pixels.dtype == torch.uint8
    assert classes.shape == (28, 28)
    known = classes != IGNORED
    assert known.any()
    error = (pixels[0].float() - 40 * classes).abs()[known]
    assert error.median() == 0  # off only where bilinear meets nearest at an edge
    assert pixels[:, ~known].unique(dim=1).flatten().tolist() == ([124, 116, 104] if (~known).any() else [])


def test_without_a_generator_the_whole_picture_is_squashed():
    pixels, classes = training_view(*pair(), 28, None)
    assert classes.unique().tolist() == [0, 1, 2, 3]
    assert torch.equal(training_view(*pair(), 28, None)[0], pixels)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((600, 400), (756, 504)), ((400, 600), (504, 756)), ((504, 504), (504, 504)), ((675, 504), (686, 504))],
)
def test_the_shorter_side_is_the_crop(size, expected):
    assert scaled_size(size, 504, 14) == expected


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (3, 2)])
def test_extreme_aspects_are_bounded(size):
    view = window_view(Image.new("RGB", size), 28, 14)
    assert min(view.shape[1:]) == 28
    assert max(view.shape[1:]) <= 4 * 28
    training_view(Image.new("RGB", size), np.zeros((size[1], size[0]), np.uint8), 28, np.random.default_rng(0))


class Script:
    """Gives prepared draws in place of a random generator's."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def random(self):
        return self.draws.pop(0)

    def uniform(self, low, high):
        return low + (high - low) * self.draws.pop(0)

    def integers(self, low, high):
        return int(low + (high - low) * self.draws.pop(0))


ON, OFF = 0.0, 0.9


@pytest.mark.parametrize("last", [True, False])
def test_jitter_is_mmsegmentation_s(last):
    """All four at once, recomputed with Python's own colour conversion; Pillow's HSV has 256 steps."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8))
    brightness, contrast, saturation, hue = -32 + 64 * 0.8, 0.5 + 0.3, 0.5 + 0.9, -18 + 9
    hsv = [ON, 0.9, ON, 0.25]
    rng = Script(ON, 0.8, *([ON, *hsv, ON, 0.3] if last else [OFF, ON, 0.3, *hsv]))
    found = np.asarray(jitter(image, rng)).astype(float)
    assert not rng.draws
    worst = 0.0
    for at in np.ndindex(12, 9):
        colour = np.clip(np.asarray(image)[at].astype(float) + brightness, 0, 255)
        colour = colour if last else np.clip(colour * contrast, 0, 255)
        h, s, v = colorsys.rgb_to_hsv(*colour / 255)
        colour = 255 * np.array(colorsys.hsv_to_rgb((h + hue * 2 / 360) % 1, min(1, s * saturation), v))
        colour = np.clip(colour * contrast, 0, 255) if last else colour
        worst = max(worst, np.abs(found[at] - colour).max())
    assert worst < 6.5  # 6.1 measured: half of a step of hue, and what saturation in 8 bits loses


def test_jitter_can_leave_a_picture_alone():
    image = pair()[0]
    assert np.array_equal(np.asarray(jitter(image, Script(OFF, ON, OFF, OFF, OFF))), np.asarray(image))


def test_brightness_is_cut_and_not_wrapped():
    white = np.full((2, 2, 3), 250, np.uint8)
    bright = jitter(Image.fromarray(white), Script(ON, 1.0, OFF, OFF, OFF, OFF))
    assert np.asarray(bright).min() == 255


def test_jitter_changes_colours_and_keeps_the_size():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    found = [np.asarray(jitter(image, np.random.default_rng(seed))) for seed in range(8)]
    assert {array.shape for array in found} == {(20, 30, 3)}
    assert sum(not np.array_equal(array, np.asarray(image)) for array in found) >= 5


def test_a_broken_picture_is_all_ignored_and_said(caplog):
    def read(index):
        raise SampleError("x", "corrupt_image")

    pixels, classes, valid = TrainingMasks(MaskSet("x", ("a",), 3, read), 28, 0)[0, 0]
    assert not valid
    assert pixels.sum() == 0
    assert (classes == IGNORED).all()
    assert "x: " in caplog.text


def test_padding_is_zero_once_normalised():
    """The authors pad behind the normalisation: within half a level of 0."""
    image, mask = pair(100, 20)
    views = [training_view(image, mask, 28, np.random.default_rng(seed)) for seed in range(9)]
    padded = [normalise(pixels[None], torch.float32)[0][:, classes == IGNORED] for pixels, classes in views]
    assert torch.cat(padded, 1).numel()
    assert torch.cat(padded, 1).abs().max() < 0.5 / 255 / 0.22
