"""Prompts: placeholders, tile budgets, and the same ids as in training."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from internvl_lab.config import TilingConfig
from internvl_lab.errors import SampleError
from internvl_lab.inference import Processor, place_images
from internvl_lab.text import ChatTemplate, Turn


def picture(width: int = 56, height: int = 56, colour: str = "red") -> Image.Image:
    return Image.new("RGB", (width, height), colour)


@pytest.mark.parametrize(
    ("text", "num_images", "is_video", "expected"),
    [
        ("Why?", 0, False, "Why?"),
        ("Why?", 1, False, "<image>\nWhy?"),
        ("Why?", 2, False, "Image-1: <image>\nImage-2: <image>\nWhy?"),
        ("Why?", 2, True, "Frame-1: <image>\nFrame-2: <image>\nWhy?"),
        ("Why?", 1, True, "Frame-1: <image>\nWhy?"),
        ("<video>\nWhy?", 2, True, "Frame-1: <image>\nFrame-2: <image>\nWhy?"),
        ("See <video> now.", 2, True, "See Frame-1: <image>\nFrame-2: <image>\n now."),
        ("Is <image> like <image>?", 2, False, "Is <image> like <image>?"),
    ],
)
def test_place_images(text: str, num_images: int, is_video: bool, expected: str) -> None:
    assert place_images(text, num_images, is_video) == expected


def test_ids_are_the_training_prompt(processor: Processor, template: ChatTemplate) -> None:
    prompt = processor("What colour?", [picture(112, 56)], key="k")
    encoded = template.encode([Turn("human", "<image>\nWhat colour?"), Turn("gpt", "red")], [3 * 4])
    supervised = int(np.flatnonzero(encoded.labels >= 0)[0])
    assert prompt.key == "k"
    assert prompt.input_ids.tolist() == encoded.input_ids[:supervised].tolist()
    assert int((prompt.input_ids == template.context_id).sum()) == 4 * prompt.num_tiles == 12


def test_tiles_are_channels_first_bytes(processor: Processor) -> None:
    prompt = processor("?", [picture(colour="#0a141e")])
    assert prompt.pixel_values.shape == (1, 3, 56, 56) and prompt.pixel_values.dtype == np.uint8
    assert prompt.pixel_values[0, :, 5, 7].tolist() == [10, 20, 30]
    assert prompt.pixel_values.flags.c_contiguous


def test_text_has_no_tiles(processor: Processor) -> None:
    assert processor("What colour?").pixel_values.shape == (0, 3, 56, 56)


def test_images_share_the_budget(processor: Processor) -> None:
    wide = picture(56 * 4, 56)
    assert [len(t) for t in processor.tile([wide])] == [5]
    assert [len(t) for t in processor.tile([wide, wide])] == [3, 3]
    assert [len(t) for t in processor.tile([wide] * 5)] == [1] * 5


def test_video_frames_are_one_tile_each(processor: Processor) -> None:
    prompt = processor("?", [picture(56 * 4, 56), picture(56 * 4, 56)], is_video=True)
    assert prompt.num_tiles == 2


def test_tile_order_follows_the_pictures(processor: Processor) -> None:
    prompt = processor("?", [picture(colour="#010101"), picture(colour="#020202")])
    assert prompt.pixel_values[:, 0, 0, 0].tolist() == [1, 2]


def test_palette_and_grey_pictures_are_converted(processor: Processor) -> None:
    assert processor("?", [Image.new("L", (56, 56), 9)]).pixel_values[0, :, 0, 0].tolist() == [9, 9, 9]


def test_wrong_number_of_placeholders_is_refused(processor: Processor) -> None:
    with pytest.raises(SampleError, match="q1"):
        processor("Is <image> red?", [picture(), picture()], key="q1")


def test_half_a_surrogate_pair_is_refused(processor: Processor) -> None:
    with pytest.raises(SampleError, match=r"k: broken_text .*ud83d"):
        processor("What is \ud83d?", key="k")


def test_other_tile_size(template: ChatTemplate) -> None:
    other = Processor(template, TilingConfig(tile_size=28, num_visual_tokens=1, max_tiles=1))
    assert other("?", [picture()]).pixel_values.shape == (1, 3, 28, 28)
