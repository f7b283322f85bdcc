from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from internvl_lab.config.curation import RulesConfig
from internvl_lab.curation.rules.images import blank_image, unreadable_image
from internvl_lab.data.miniworld.sample import make_sample
from internvl_lab.data.transforms import decode_image
from internvl_lab.errors import SampleError

LIMIT = RulesConfig().blank_image.threshold


def test_unreadable_images_are_counted():
    error = SampleError("k", "corrupt_image", "cut")
    assert unreadable_image([Image.new("RGB", (9, 9)), error, error]).score == 2
    assert "cut" in unreadable_image([error]).detail
    assert unreadable_image([]).score == 0


@pytest.mark.parametrize("noise", [0, 2])
def test_one_colour_is_blank_even_with_noise(noise):
    pixels = 100 + np.random.default_rng(0).integers(-noise, noise + 1, (300, 200, 3))
    assert blank_image([Image.fromarray(pixels.astype(np.uint8))]).score > LIMIT


def test_a_page_with_one_line_of_print_is_not_blank():
    page = Image.new("RGB", (800, 1100), "white")
    ImageDraw.Draw(page).text((100, 100), "One line of small print on a page", "black")
    assert blank_image([page]).score < LIMIT


def test_no_picture_of_miniworld_is_blank():
    for index in range(20):
        sample = make_sample("finetune", index, 0, "ocr")
        assert blank_image([decode_image(data, "k") for _, data in sample.images]).score < LIMIT
