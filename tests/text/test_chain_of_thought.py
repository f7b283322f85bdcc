from __future__ import annotations

import pytest

from internvl_lab.text.chain_of_thought import DIRECT_SUFFIXES, boxed, cot_prompt, options_of

CHOICE = "Which is it?\nA. a cat\nB. a dog, or so\nAnswer with the option's letter from the given choices directly."


@pytest.mark.parametrize(
    ("question", "options"),
    [
        (CHOICE, {"A": "a cat", "B": "a dog, or so"}),
        ("Which?\n(A) 1\n(B) 2\n(C) 3", {"A": "1", "B": "2", "C": "3"}),
        ("Which?\nA: 1\nB) 2", {"A": "1", "B": "2"}),
        ("Which?\n  A. 1\n\tB. 2\n", {"A": "1", "B": "2"}),
        ("What is A. Smith's age?", {}),
        ("A. single line", {}),
        ("Which?\nB. 1\nC. 2", {}),
        ("Which?\nA. 1\nC. 2", {}),
        ("Options: A. 1 B. 2", {}),
    ],
)
def test_options(question: str, options: dict[str, str]) -> None:
    assert options_of(question) == options


def test_a_choice_asks_for_a_letter() -> None:
    prompt = cot_prompt(CHOICE)
    assert prompt.startswith("Which is it?\nA. a cat\nB. a dog, or so\n")
    assert prompt.endswith(r"The last line must be: Answer: \boxed{LETTER}")
    for element in ("question above", "options", "step by step", "repeating", "unsure"):
        assert element in prompt


def test_an_open_question_asks_for_the_answer() -> None:
    prompt = cot_prompt("How many?")
    assert prompt.startswith("How many?\n") and prompt.endswith(r"Answer: \boxed{FINAL_ANSWER}")
    assert "options" not in prompt


@pytest.mark.parametrize("suffix", DIRECT_SUFFIXES)
def test_what_asks_for_the_bare_answer_goes(suffix: str) -> None:
    assert suffix not in cot_prompt(f"How many?\n{suffix}")
    assert cot_prompt(f"How many?\n{suffix}") == cot_prompt("How many?")


def test_boxed() -> None:
    assert boxed("3") == r"Answer: \boxed{3}"
