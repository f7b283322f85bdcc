"""MMMU's parsers on hard cases."""

from __future__ import annotations

import pytest

from internvl_lab.evaluation.metrics import mmmu, mmmu_pro
from internvl_lab.evaluation.metrics.mmmu import (
    is_mmmu,
    is_mmmu_pro,
    is_open_right,
    judge,
    normalise,
    parse_choice,
    parse_choice_pro,
    parse_open,
)

OPTIONS = {"A": "oxygen", "B": "carbon dioxide", "C": "both", "D": "none"}


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("'B'", "B"),
        ("B)", None),
        ("Answer:B", None),
        ("The answer is B", "B"),
        ("A and B", "B"),  # the last of several
        ("(A) is wrong, (C) is right, not B", "C"),  # brackets win
        ("(C) then (A)", "A"),
        ("A gas is needed, so (B)", "B"),
        ("A gas", "A"),
        ("It must be carbon dioxide I think", "B"),
        ("carbon dioxide", None),  # five words or fewer are not searched for texts
        ("First oxygen, in the end carbon dioxide though", "B"),
        ("b", None),
        ("", None),
    ],
)
def test_parse_choice(response: str, letter: str | None) -> None:
    assert parse_choice(response, OPTIONS) == letter


@pytest.mark.parametrize(
    ("response", "letter"),
    [  # computed by MMMU-Pro's mmmu-pro/evaluate.py
        ("Answer: B", "B"),
        ("Answer: A or B", "B"),
        ("I think so. Answer: none", None),
        ("The answer is ABC. Answer:", "C"),
        ("Answer: Both", "B"),
        ("VITAMIN B is it", "B"),
        ("B. is right, A. is not", "A"),
        ("CAB said (A)", "A"),
        ("It must be the cat I think", "B"),
        ("the cat", None),
        ("The answer is\nB", "B"),
        (" B) ", None),
        ("", None),
        ("b", None),
        ("Because of A", "A"),
        ("答案是D", "D"),
    ],
)
def test_parse_choice_pro(response: str, letter: str | None) -> None:
    options = {"A": "a dog", "B": "the cat", "C": "both", "D": "red"}
    assert parse_choice_pro(response, options) == letter
    assert is_mmmu_pro(response, {"answer": "B", "options": options}) is (letter == "B")


@pytest.mark.parametrize(
    ("response", "answer", "right"),
    [
        ("3.14", "3.14", True),
        ("3.141", "3.14", True),  # rounded to two decimals
        ("3.15", "3.14", False),
        ("The answer is 1,000.", "1000", True),
        ("x = 5", "5", True),
        ("1e3", "1000", True),
        ("-2", "2", False),
        ("50%", "50", True),
        ("about 12 kg", "12", True),
        ("12kg", "12", False),
        ("The final answer is the left atrium.", "left atrium", True),
        ("Left Atrium", "left atrium", True),
        ("right", "left", False),
        ("x", "x", True),
        ("xyz", "x", False),  # a single character must stand apart
        ("it is x", "x", True),
        ("", "5", False),
        ("北京", "北京", True),
        ("Because it could be 4\nSo it is 7", "7", True),
    ],
)
def test_open(response: str, answer: str, right: bool) -> None:
    assert is_open_right(parse_open(response), [answer]) is right
    assert is_mmmu(response, {"question_type": "open", "answer": answer}) is right


def test_several_open_answers() -> None:
    assert is_mmmu("24/7", {"question_type": "open", "answer": ["24/7", "3.429"]})
    assert is_mmmu("3.43", ["24/7", "3.429"])


def test_normalise() -> None:
    assert normalise(" 1,234.567 ") == [1234.57] and normalise("X") == [" x", "x "] and normalise("Ab") == ["ab"]


def test_the_fallback_is_the_first_option_and_is_counted() -> None:
    reference = {"question_type": "multiple-choice", "answer": "A", "options": "['x', 'y']"}
    assert judge("?", reference) == (True, True)
    assert mmmu(["?", "B", "A"], [reference] * 3) == {"mmmu": pytest.approx(2 / 3), "fallback": pytest.approx(1 / 3)}
    assert mmmu_pro(["?", "BA", "A"], [reference] * 3)["mmmu_pro"] == 1.0


def test_no_letter_is_read_from_options_without_texts() -> None:
    assert parse_choice("one two three four five six", dict.fromkeys("ABCD", "")) is None
