"""TheoremQA by hand: triggers, yes and no, letters, expressions, tolerance; and nothing is executed."""

from __future__ import annotations

import pytest

from internvl_lab.evaluation.metrics import theoremqa
from internvl_lab.evaluation.metrics.theoremqa import is_theoremqa, stated_answer, to_number


@pytest.mark.parametrize(
    ("kind", "right", "prediction", "is_right"),
    [
        ("integer", "12", "The answer is 12.", True),
        ("integer", "12", "first 3, then 12", True),  # the last number, where nothing is stated
        ("integer", "12", "12, then 3", False),
        ("integer", "12", "The answer is x = 12.4", True),  # rounded
        ("integer", "12", "The answer is 12 apples", True),
        ("float", "0.5", "The answer is \\frac{1}{2}.", True),
        ("float", "0.5", "The answer is 52%", True),  # within 4 %
        ("float", "0.5", "The answer is 0.53", False),
        ("float", "-2.0", "the answer is -2.05", True),
        ("float", "6.28", "The answer is 2\\pi", True),
        ("float", "1.41", "The answer is $\\sqrt{2}$", True),
        ("float", "1.41", "The answer is: about that", False),
        ("bool", "True", "The answer is yes", True),
        ("bool", "False", "It is not so. The answer is: No.", True),
        ("bool", "True", "I know it is wrong", False),  # the `no` of `know` counts
        ("option", "(b)", "The answer is (B) because", True),
        ("option", "(b)", "The answer is b", False),
        ("list of integer", "[1, 2]", "The answer is [1, 2]", True),
        ("list of integer", "[1, 2]", "The answer is [2, 1]", False),
        # by OpenCompass's datasets/TheoremQA (latex2sympy failing, but for the last three, which need it)
        ("float", "6.28", "The answer is 2*π./", True),
        ("float", "20.0", "The answer is 20°C", True),
        ("float", "0.5", "The answer is 50%.", True),
        ("integer", "12", "The answer is $12 /.", True),
        ("integer", "12", "the answer is 12 kg per m", True),
        ("integer", "1", "The answer is (1, 2)", True),
        ("float", "3.0", "The answer is 3 of 5", False),
        ("integer", "1000", "The answer is 1,000", True),  # read as a number with thousands
        ("list of integer", "[1, 2]", "The answer is [1,2]", True),  # printed anew
        ("integer", "0", "The answer is unknown", False),  # a `no`, which is no number
    ],
)
def test_one_answer(kind: str, right: str, prediction: str, is_right: bool) -> None:
    assert is_theoremqa(prediction, {"answer": right, "Answer_type": kind}) is is_right


def test_only_the_first_of_several_solutions_counts() -> None:
    assert stated_answer("The answer is 3.\n\nProblem: ...\nThe answer is 4.") == "3"


def test_lists_that_json_holds_are_compared_as_their_text() -> None:
    assert is_theoremqa("The answer is [1, 2]", {"answer": ["1", "2"], "Answer_type": "list of integer"})


@pytest.mark.parametrize(
    "text",
    ["__import__('os').getcwd()", "9**9**9**9", "a.b", "[1]", "1/0", "(" * 5000, "sqrt(x=1)", "log()", "'a'", ""],
)
def test_nothing_but_arithmetic_is_evaluated(text: str) -> None:
    assert to_number(text) is None


def test_share() -> None:
    references = [{"answer": "1", "Answer_type": "integer"}] * 2
    assert theoremqa(["The answer is 1", "2"], references) == {"theoremqa": 0.5}
