"""Sets with scorers of their own: every expected value was computed by the official script that the column names."""

from __future__ import annotations

from typing import Any

import pytest

from internvl_lab.evaluation.metrics import (
    choice_or_word,
    crpe,
    longvideobench,
    mlvu,
    mme_realworld,
    mmiu,
    mvbench,
    videomme,
)
from internvl_lab.evaluation.metrics.own_choices import (
    first_capital,
    is_choice_or_word,
    is_crpe,
    is_longvideobench,
    is_mlvu,
    is_mme_realworld,
    is_mmiu,
    is_mvbench,
    is_videomme,
)

OPTIONS = {"A": "a dog", "B": "the cat", "C": "both", "D": "red"}
REFERENCE = {"answer": "B", "options": OPTIONS}
JUDGES = (is_videomme, is_mme_realworld, is_mvbench, is_mlvu, is_crpe, is_choice_or_word)


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [  # VLMEvalKit's videomme.py and multiple_choice.py, the authors' evaluate_mvbench.py, VLMEvalKit's mlvu.py and
        # crpe.py (reference "B. the cat"), the authors' evaluate_mantis.py; the right option is B
        ("B", "111111"),
        ("b", "011000"),
        ("B.", "111110"),
        ("(B)", "111101"),
        ("(B) the cat", "111110"),
        ("B the cat", "111110"),
        ("the cat", "100111"),
        ("The cat", "100110"),
        ("The answer is B.", "110100"),
        ("Answer: B", "101100"),  # the A of "Answer" counts for MME-RealWorld and CRPE
        ("Answer: (B)", "101100"),
        ("Best answer: D", "110010"),
        ("Because of A", "110010"),
        ("x) B", "110100"),
        ("A) or B)", "000000"),
        ("C) both", "000000"),
        ("(", "001000"),
        ("[b]", "000000"),
        ("答案是D", "000000"),
        ("I cannot say", "000000"),
    ],
)
def test_readings(prediction: str, expected: str) -> None:
    references: list[Any] = [REFERENCE] * 4 + ["B. the cat", REFERENCE]
    got = [judge(prediction, reference) for judge, reference in zip(JUDGES, references, strict=True)]
    assert "".join(str(int(right)) for right in got) == expected


def test_no_answer() -> None:
    # as the same scripts, but for crpe.py, which fails on an empty answer
    assert is_mvbench("", REFERENCE)
    assert is_mme_realworld("", {**REFERENCE, "answer": "A"}) and not is_mme_realworld("", REFERENCE)
    assert not any(judge("", REFERENCE) for judge in (is_videomme, is_longvideobench, is_mlvu, is_crpe, is_mmiu))


def test_longvideobench_has_five_letters() -> None:
    options = {**OPTIONS, "E": "blue"}
    assert is_longvideobench("Each", {"answer": "E", "options": options})
    assert not is_videomme("Each", {"answer": "E", "options": options})


def test_first_capital() -> None:
    assert first_capital("The answer is: dB", "AB", ("The answer is",)) == "B" and first_capital("xyz", "AB", ()) == ""


def test_crpe_with_a_letter_alone() -> None:
    # by VLMEvalKit's crpe.py: no text is in every text
    assert is_crpe("I cannot say", "B") and is_crpe("B.", "B") and not is_crpe("A", "B") and not is_crpe("E", "B")
    assert crpe(["I cannot say", "B", "A"], ["B"] * 3) == {"crpe": pytest.approx(2 / 3), "letter": pytest.approx(1 / 3)}


def test_short_answers_of_mantis() -> None:
    # by the authors' evaluate_mantis.py
    assert is_choice_or_word("YES", {"answer": "yes"}) and not is_choice_or_word("yes ", {"answer": "yes"})
    references = [REFERENCE, {"answer": "Yes"}, {"answer": "no"}]
    scores = choice_or_word(["(B) the cat", "yes", "yes"], references)
    assert scores == {"choice_or_word": pytest.approx(1 / 3), "lenient": pytest.approx(2 / 3)}


def test_common_reading_stands_beside() -> None:
    answers, references = ["Because", "B"], [REFERENCE] * 2
    assert videomme(answers, references) == {"videomme": 1.0, "multiple_choice": 0.5}
    assert longvideobench(answers, references) == {"longvideobench": 1.0, "multiple_choice": 0.5}
    assert mme_realworld(answers, references) == {"mme_realworld": 1.0, "multiple_choice": 0.5}
    assert mvbench(["", "B"], references) == {"mvbench": 1.0, "multiple_choice": 0.5}


def test_tasks_are_averaged_without_weights() -> None:
    references = [{**REFERENCE, "task": task} for task in ("x", "x", "x", "y")]
    expected = pytest.approx((1 / 3 + 1) / 2)
    # "The cat" is B for VLMEvalKit, and nothing for the authors, who compare with case
    assert mmiu(["B: the cat", "The cat", "A", "the cat"], references) == {"mmiu": expected, "overall": 0.5}
    assert mlvu(["(B", "A", "C) B", "The cat"], references) == {"mlvu": expected, "overall": 0.5}
    with pytest.raises(ValueError, match="task"):
        mmiu(["B"], [REFERENCE])
