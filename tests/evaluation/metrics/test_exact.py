"""Equality: ours, the authors' without case, and GQA's."""

from __future__ import annotations

import pytest

from internvl_lab.evaluation.metrics import accuracy, exact_match, gqa
from internvl_lab.evaluation.metrics.exact import is_exact, is_gqa, is_same_word, normalise_answer


@pytest.mark.parametrize(
    ("prediction", "reference", "right"),
    [
        ("yes", "yes", True),
        ("Yes.", "yes", True),
        ("Yes...", "yes", True),
        ("YES", "yes", True),
        ("yes. ", "yes", False),  # only dots at the very end go
        (" yes", "yes", False),
        ("yes,", "yes", False),
        ("yes", "Yes", False),  # the reference is taken as it is
        ("the table", "table", False),
        ("", "", True),
        (".", "", True),
    ],
)
def test_gqa(prediction: str, reference: str, right: bool) -> None:
    assert is_gqa(prediction, reference) is right
    assert gqa([prediction], [reference]) == {"gqa": float(right)}


@pytest.mark.parametrize(
    ("prediction", "reference", "right"),
    [
        (" Yes ", "yes", True),
        ("B", ["A", "b"], True),
        ("yes.", "yes", False),
        ("a  b", "a b", False),
        ("是", "是", True),
    ],
)
def test_accuracy(prediction: str, reference: str, right: bool) -> None:
    assert is_same_word(prediction, reference) is right
    assert accuracy([prediction], [reference]) == {"accuracy": float(right)}


def test_exact_match_takes_lists_and_dicts() -> None:
    assert exact_match(["b", "x"], [["a", "b"], {"answer": "x"}]) == {"exact_match": 1.0}
    assert is_exact(" a\nb", ["a b"]) and normalise_answer(" a\t b ") == "a b"
