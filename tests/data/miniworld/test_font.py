from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from internvl_lab.data.miniworld import vocabulary
from internvl_lab.data.miniworld.font import GLYPH_HEIGHT, GLYPH_WIDTH, characters, glyph_mask


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_every_glyph_has_the_promised_size(scale: int) -> None:
    for character in characters():
        mask = glyph_mask(character, scale)
        assert mask.shape == (GLYPH_HEIGHT * scale, GLYPH_WIDTH * scale)
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 255}


def test_no_two_characters_look_the_same() -> None:
    for a, b in combinations(characters(), 2):
        assert (glyph_mask(a, 1) != glyph_mask(b, 1)).any(), (a, b)


def test_characters_of_random_strings_differ_in_at_least_four_font_pixels() -> None:
    for a, b in combinations(vocabulary.OCR_ALPHABET, 2):
        assert (glyph_mask(a, 1) != glyph_mask(b, 1)).sum() >= 4, (a, b)


def test_font_covers_everything_that_is_written() -> None:
    words = (*vocabulary.NUMBER_KEYS, *vocabulary.WORD_KEYS, *vocabulary.TITLES, vocabulary.OCR_ALPHABET, "0123456789")
    assert set("".join(words).upper()) <= set(characters())


def test_scaling_enlarges_each_font_pixel() -> None:
    assert np.array_equal(glyph_mask("K", 3)[1::3, 1::3], glyph_mask("K", 1))


def test_unknown_character_is_refused() -> None:
    with pytest.raises(KeyError):
        glyph_mask("é", 1)
