from __future__ import annotations

import pytest

from internvl_lab.inference.test_time.answers import extract, last_boxed, normalise

OPEN = "How many?"
CHOICE = "Which?\nA. a red cat\nB. 12 dogs\nC. none"


@pytest.mark.parametrize(
    ("text", "question", "answer", "how"),
    [
        (r"One. Two." + "\n" + r"Answer: \boxed{2}", OPEN, "2", "boxed"),
        (r"\boxed{1}, no: \boxed{\frac{1}{2}}", OPEN, r"\frac{1}{2}", "boxed"),
        (r"Answer: \boxed{\text{red cat}}", OPEN, "red cat", "boxed"),
        (r"Answer: $\boxed{7}$", OPEN, "7", "boxed"),
        (r"Answer: \boxed {7}", OPEN, "7", "boxed"),
        (r"so \boxed{7 and then it stops", OPEN, r"so \boxed{7 and then it stops", "text"),
        ("Steps.\nAnswer: 12 dogs", OPEN, "12 dogs", "line"),
        ("Steps.\n**Final answer:** 12", OPEN, "12", "line"),
        ("Answer: 1\nno\nanswer\uff1a 3", OPEN, "3", "line"),
        ("I think the answer is 4.5. Done", OPEN, "4.5", "phrase"),
        ("first\nlast line\n\n", OPEN, "last line", "text"),
        ("", OPEN, "", "text"),
        (r"Answer: \boxed{B}", CHOICE, "B", "boxed"),
        (r"Answer: \boxed{B. 12 dogs}", CHOICE, "B", "boxed"),
        (r"Answer: \boxed{(B)}", CHOICE, "B", "boxed"),
        (r"Answer: \boxed{A Red  cat}", CHOICE, "A", "boxed"),
        (r"Answer: \boxed{D}", CHOICE, "D", "boxed"),
        ("Answer: C", CHOICE, "C", "line"),
        ("Not (A), so (C).", CHOICE, "C", "letter"),
        ("It must be\n12 dogs", CHOICE, "B", "text"),
        ("Answer: \nB", CHOICE, "B", "line"),
    ],
)
def test_final_answers(text: str, question: str, answer: str, how: str) -> None:
    found = extract(text, question)
    assert (found.text, found.how) == (answer, how)


@pytest.mark.parametrize(
    ("text", "answer"), [(" B \n", "B"), ("B.", "B"), ("12 dogs", "B"), ("A red thing", "A red thing")]
)
def test_a_direct_answer_is_its_own(text: str, answer: str) -> None:
    assert extract(text, CHOICE, worked=False).text == answer
    assert extract("Answer: 3", OPEN, worked=False).text == "Answer: 3"


def test_the_last_complete_box_counts() -> None:
    assert last_boxed(r"\boxed{A} or \boxed{B") == "A"
    assert last_boxed(r"} {x \boxed{A} }") == "A"
    assert last_boxed(r"\boxed{\{1, 2\}}") == r"\{1, 2\}"
    assert last_boxed(r"\boxed{\}") is None
    assert last_boxed(r"\boxed{A \boxed{B}") == "B"
    assert last_boxed(r"\boxed{}") == ""


def test_an_answer_that_loops_is_read_in_one_pass() -> None:
    """A pass for each beginning would take hours; it took 34 s for 1,500 of them."""
    assert last_boxed("\\boxed{" * 100_000 + "x") is None


def test_boxes_nest() -> None:
    assert last_boxed(r"\boxed{a{b}c} \boxed{x") == "a{b}c"
    assert last_boxed("none") is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("$1,250.0$.", "1250"),
        ("Red  Cat", "red cat."),
        (r"\text{yes}", "Yes"),
        ("3.50", "3.5"),
        ("B", "b"),
        ("**2**", "2"),
    ],
)
def test_same_answers_are_one(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(("one", "other"), [("1,25", "125"), ("-2", "2"), ("12", "1 2"), ("1.5", "15"), ("3:4", "34")])
def test_other_answers_stay_apart(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)
