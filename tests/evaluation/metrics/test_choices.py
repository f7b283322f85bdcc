"""Multiple choice: letters, option texts, refusals, rotations."""

from __future__ import annotations

from typing import Any

import pytest

from internvl_lab.evaluation.metrics import mmbench_circular, multiple_choice
from internvl_lab.evaluation.metrics.choices import (
    correct_letter,
    find_letter,
    find_letter_as_run,
    is_right_choice,
    read_choice,
)

OPTIONS = {"A": "a dog", "B": "the cat", "C": "both", "D": "红色"}


@pytest.mark.parametrize(
    ("prediction", "letter", "as_run"),
    [
        ("B", "B", "B"),
        ("b", "Z", "b"),
        ("(B)", "B", "(B)"),
        ("B.", "B", "B"),
        ("B: the cat", "B", "B"),
        ("Answer: B", "B", "A"),  # the authors take the first character
        ("The answer is B.", "B", "The answer is B."),
        ("**B**", "B", "**B**"),
        ("the cat", "B", "B"),
        ("It is the cat", "B", "B"),
        ("The Cat", "B", "The Cat"),  # the authors compare with case
        ("A or B", "Z", "A"),
        ("A dog", "A", "A"),
        ("the cat, or both", "Z", "B"),  # two texts; the authors take the first
        ("E", "Z", "E"),
        ("Z", "Z", "Z"),
        ("", "Z", ""),
        ("红色", "D", "D"),
        ("答案是D。", "Z", "答案是D。"),  # no space around the letter
        ("Sorry, I can't help with images of people yet. B", "Z", "Sorry, I can't help with images of people yet. B"),
        ("none", "Z", "none"),
        # by VLMEvalKit's utils/matching_util.py and the authors' evaluate_mmbench.py
        ("Failed to obtain answer via API. B", "Z", "Failed to obtain answer via API. B"),
        ("Failed to obtain answer via API. B, the cat", "B", "B"),
        ("Cannot determine the answer. Failed to obtain answer via API: red, the cat", "B", "C"),
        ("[C]", "C", "[C]"),
        ("A A A", "A", "A"),
        ("\uff21 dog", "Z", "\uff21 dog"),
        ("A|B", "Z", "A"),
    ],
)
def test_find_letter(prediction: str, letter: str, as_run: str) -> None:
    assert find_letter(prediction, OPTIONS) == letter
    assert find_letter_as_run(prediction, OPTIONS) == as_run


@pytest.mark.parametrize(
    ("reference", "letter"),
    [
        ("B", "B"),
        ("(b)", "B"),
        ({"answer": "B.", "A": "x", "B": "y"}, "B"),
        ({"answer": "y", "options": ["x", "y"]}, "B"),
    ],
)
def test_correct_letter(reference: Any, letter: str) -> None:
    options, right = read_choice(reference)
    assert right == letter == correct_letter(reference, options)


def test_multiple_choice_reports_what_it_could_not_read() -> None:
    references = [{"answer": "A", **OPTIONS}] * 4
    scores = multiple_choice(["A", "B", "no idea", "Answer: B"], references)
    assert scores == {"multiple_choice": 0.25, "as_run": 0.5, "first_option": 0.5, "unparsed": 0.25}


def test_an_empty_option_is_in_every_answer() -> None:
    # by VLMEvalKit's utils/matching_util.py, can_infer, and the authors' evaluate_mmbench.py, post_process
    options = {"A": "red", "B": ""}
    assert find_letter("b", options) == find_letter_as_run("bc", options) == "B"
    assert find_letter("red", options) == "Z" and find_letter_as_run("red", options) == "A"


def test_without_options_only_letters_count() -> None:
    assert is_right_choice("I think it is C", "C") and not is_right_choice("red", "C")


def test_circular_needs_every_rotation() -> None:
    references = [{"answer": "A", "index": i, **OPTIONS} for i in (7, 1_000_007, 2_000_007, 8, 1_000_008)]
    scores = mmbench_circular(["A", "A", "A", "A", "B"], references)
    assert scores == {"mmbench_circular": 0.5, "vanilla": 0.8}
    with pytest.raises(ValueError, match="index"):
        mmbench_circular(["A"], ["A"])


def test_a_question_without_its_first_rotation_does_not_count() -> None:
    # by VLMEvalKit's utils/multiple_choice.py, mcq_circular_eval, which goes through the rows with index == g_index
    references = [{"answer": "A", "index": i, **OPTIONS} for i in (7, 1_000_008, 9, 1_000_009)]
    assert mmbench_circular(["A", "B", "A", "A"], references) == {"mmbench_circular": 1.0, "vanilla": 0.75}
    with pytest.raises(ValueError, match="first rotation"):
        mmbench_circular(["A"], references[1:2])
