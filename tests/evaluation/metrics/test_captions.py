"""CIDEr-D by hand, and the tokenizer."""

from __future__ import annotations

import math

import pytest

from internvl_lab.evaluation.metrics import cider_d
from internvl_lab.evaluation.metrics.captions import tokenise_caption


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A man, riding a horse.", "a man riding a horse"),
        ("it's a dog's toy; they don't", "it 's a dog 's toy they do n't"),
        ("a well-known sign", "a well-known sign"),
        ("3.5 miles, 1,000 people", "3.5 miles 1,000 people"),
        ("U.S. flag (old)", "u.s. flag -lrb- old -rrb-"),
        ('the "best" one!', "the best one"),
        ("already apart words", "already apart words"),
        ("I cannot -- see...", "i can not see"),
        ("两只狗", "两只狗"),
        ("", ""),
    ],
)
def test_tokens(caption: str, words: str) -> None:
    assert tokenise_caption(caption) == words.split()


def test_by_hand() -> None:
    # Every n-gram occurs for one of two images, so all weigh log 2. Image 1 is exact for n = 1, 2 and has no longer
    # n-grams: (1 + 1 + 0 + 0) / 4 x 10 = 5. Image 2 shares one of two words: (1/2 + 0) / 4 x 10 = 1.25.
    assert cider_d(["a b", "c x"], [["a b"], ["c d"]]) == {"cider_d": pytest.approx((5 + 1.25) / 2)}


def test_length_costs_and_counts_are_clipped() -> None:
    # words a a against a: clipped product 1, norms 2 and 1: 1/2 for n = 1; one bigram more than the reference has
    expected = 10 * 0.5 * math.exp(-1 / 72) / 4
    assert cider_d(["a a", "z"], [["a"], ["q"]]) == {"cider_d": pytest.approx(expected / 2)}


def test_words_of_all_images_weigh_nothing() -> None:
    assert cider_d(["the", "the"], [["the"], ["the"]]) == {"cider_d": 0.0}


def test_one_image_scores_nothing() -> None:
    assert cider_d(["a dog"], [["a dog"]]) == {"cider_d": 0.0}


def test_references_are_averaged() -> None:
    one = cider_d(["a b", "c"], [["a b"], ["d"]])["cider_d"]
    two = cider_d(["a b", "c"], [["a b", "x y"], ["d"]])["cider_d"]
    assert two == pytest.approx(one / 2)


def test_empty_captions() -> None:
    assert cider_d(["", "c"], [["a b"], ["d"]]) == {"cider_d": 0.0}
