"""MathVista: official extraction and normalisation, and our rules in the judge's place."""

from __future__ import annotations

from typing import Any

import pytest

from internvl_lab.evaluation.metrics import mathvista
from internvl_lab.evaluation.metrics.mathvista import (
    extract_by_rules,
    extract_official,
    is_mathvista,
    is_mathvista_official,
    judge,
    normalise_extraction,
)

INTEGER = {"question_type": "free_form", "answer_type": "integer", "answer": "14", "precision": None}
FLOAT = {"question_type": "free_form", "answer_type": "float", "answer": "1.2", "precision": 1.0}
LIST = {"question_type": "free_form", "answer_type": "list", "answer": "[2007, 2008]"}
CHOICE = {"question_type": "multi_choice", "answer_type": "text", "answer": "8/11", "choices": ["3/11", "8/11", "Yes"]}


@pytest.mark.parametrize(
    ("response", "reference", "right", "official", "ruled"),
    [
        ("14", INTEGER, True, True, False),
        ("14.0", INTEGER, True, False, True),  # not int("14.0"), so the judge would be asked
        ("14.9", INTEGER, True, False, True),  # cut, not rounded
        ("The number missing is 14.", INTEGER, True, False, True),
        ("2 + 12 = 14 apples", INTEGER, True, False, True),
        ("The answer is 1,400", {**INTEGER, "answer": "1400"}, True, False, True),
        ('The answer is "14".', INTEGER, True, True, False),
        ("\\boxed{14} since 3 > 2", INTEGER, True, False, True),
        ("13", INTEGER, False, False, False),
        ("fourteen", INTEGER, False, False, True),
        ("", INTEGER, False, False, False),
        ("1.2", FLOAT, True, True, False),
        ("1.24", FLOAT, True, True, False),
        ("1.25", FLOAT, True, True, False),  # Python rounds the binary 1.25 to even
        ("1.26", FLOAT, False, False, False),
        ("$1.20", FLOAT, True, False, True),
        ("1.2%", FLOAT, True, False, True),
        ("It peaked between [2007, 2008].", LIST, True, False, True),
        ("8/11", CHOICE, True, True, False),
        ("B", CHOICE, True, False, True),
        ("(B) 8/11", CHOICE, True, False, True),
        ("The correct answer is (b) 8/11.", CHOICE, True, False, True),
        ("(A)", CHOICE, False, False, True),
        ("9/11", CHOICE, False, False, True),  # one edit from 3/11 and from 8/11: the first wins
        ("", CHOICE, False, False, False),  # the nearest option to nothing is the shortest
    ],
)
def test_cases(response: str, reference: dict[str, Any], right: bool, official: bool, ruled: bool) -> None:
    assert judge(response, reference) == (right, ruled)
    assert is_mathvista(response, reference) is right
    assert is_mathvista_official(response, reference) is official


def test_choices_may_be_a_text() -> None:
    assert is_mathvista("(B)", {**CHOICE, "choices": "['3/11', '8/11']"})


def test_text_answers_are_compared_as_stated() -> None:
    reference = {"question_type": "free_form", "answer_type": "text", "answer": "x^2"}
    assert extract_by_rules("So the answer is: $x^2$.", reference) == "x^2"
    assert is_mathvista("\\boxed{x^2}", reference)


def test_normalisation_needs_its_fields() -> None:
    assert normalise_extraction("x", FLOAT) is None and normalise_extraction("inf", INTEGER) is None
    assert extract_official("about 14", INTEGER) is None
    with pytest.raises(ValueError, match="answer"):
        mathvista(["1"], [{"answer_type": "integer"}])


def test_mathvista_says_how_much_a_judge_would_have_read() -> None:
    scores = mathvista(["14", "It is 14."], [INTEGER] * 2)
    assert scores == {"mathvista": 1.0, "official_rules": 0.5, "without_judge": 0.5}
