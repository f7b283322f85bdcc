"""MATH-Vision: VLMEvalKit's comparison, and our rules in the judge's place."""

from __future__ import annotations

from typing import Any

import pytest

from internvl_lab.evaluation.metrics import mathvision
from internvl_lab.evaluation.metrics.mathvision import is_equal, is_mathvision, is_mathvision_official, judge

OPEN = {"answer": "14", "choices": "[]"}
CHOICE = {"answer": "B", "choices": "['3', '5', '7', '9', '11']"}


@pytest.mark.parametrize(
    ("prediction", "reference", "official", "right", "ruled"),
    [  # the column `official` was computed by VLMEvalKit's utils/mathv.py, post_check
        ("14", OPEN, True, True, False),
        ("14.0", OPEN, True, True, False),
        (" 28/2 ", OPEN, True, True, False),
        ("so \\boxed{14}. and \\boxed{7}", OPEN, True, True, False),
        ("\\boxed{7} or 14", OPEN, False, False, True),
        ("It is 14.", OPEN, False, False, True),
        ("The answer is 14.", OPEN, False, True, True),
        ("14 cm", OPEN, False, False, True),
        ("", OPEN, False, False, True),
        ("X", {**OPEN, "answer": "x"}, True, True, False),
        ("A", OPEN, True, True, False),  # `a` is the scorer's own variable with the right number
        ("(a)", OPEN, True, True, False),
        ("A", {**OPEN, "answer": "x"}, False, False, True),
        ("B", CHOICE, True, True, False),
        ("(B) 5", CHOICE, True, True, False),
        ("5", CHOICE, True, True, False),
        ("15", CHOICE, True, True, False),  # the text of an option inside another number
        ("\\boxed{C}, not B", CHOICE, False, False, False),
        ("The answer: (B), since A is too small", CHOICE, False, True, True),
        ("b", CHOICE, False, False, True),
    ],
)
def test_cases(prediction: str, reference: dict[str, Any], official: bool, right: bool, ruled: bool) -> None:
    assert is_mathvision_official(prediction, reference) is official
    assert judge(prediction, reference) == (right, ruled)
    assert is_mathvision(prediction, reference) is right


def test_is_equal() -> None:
    assert is_equal("\\frac{1}{2}", "0.5") and is_equal("0.3333333", "1/3") and not is_equal("0.333", "1/3")


def test_mathvision_says_how_much_a_judge_would_have_read() -> None:
    scores = mathvision(["14", "The answer is 14"], [OPEN] * 2)
    assert scores == {"mathvision": 1.0, "official_rules": 0.5, "without_judge": 0.5}
