"""What all metrics share: refusals, forms of references, independence of the order of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from internvl_lab.evaluation import metrics
from internvl_lab.evaluation.metrics.pairs import (
    answers_of,
    average,
    edit_distance,
    field,
    optional,
    options_of,
    paired,
    share,
)

NAMES = (
    "anls",
    "relaxed_accuracy",
    "vqa_accuracy",
    "gqa",
    "multiple_choice",
    "mmmu",
    "mathvista",
    "pope",
    "mme",
    "hallusion",
    "iou_at_50",
    "cider_d",
    "ocrbench",
    "vcr",
    "exact_match",
    # one set each
    "choice_or_word",
    "crpe",
    "longvideobench",
    "mathvision",
    "mirb",
    "mlvu",
    "mmbench_circular",
    "mme_realworld",
    "mmiu",
    "mmmu_pro",
    "mvbench",
    "theoremqa",
    "videomme",
)
CHOICE = {"answer": "B", "options": ["a dog", "a cat", "a cow"]}
CHOICES: list[tuple[str, Any]] = [("B", CHOICE), ("a cow", CHOICE), ("none of them", CHOICE)]
TASKS: list[tuple[str, Any]] = [(answer, {**CHOICE, "task": task}) for answer, task in (("B", 1), ("A", 1), ("?", 2))]
GROUPED = ("pope", "mme", "ocrbench", "hallusion", "vcr", "mirb", "mlvu", "mmbench_circular", "mmiu")
"""Metrics that sum, or group their answers."""
ROWS: dict[str, list[tuple[str, Any]]] = {
    "anls": [("Paris.", ["Paris", "paris, france"]), ("x", ["Berlin"]), ("Berlim", "Berlin")],
    "relaxed_accuracy": [("95", "100"), ("7 %", "0.07"), ("yes", ["Yes"])],
    "vqa_accuracy": [("two", ["2"] * 3 + ["3"] * 7), ("a red car", ["red car"] * 10), ("no", ["yes"] * 10)],
    "gqa": [("Yes.", "yes"), ("left", "right"), ("", "no")],
    **dict.fromkeys(("multiple_choice", "longvideobench", "mme_realworld", "mvbench", "videomme"), CHOICES),
    **dict.fromkeys(("mmiu", "mlvu"), TASKS),
    "choice_or_word": [("(B)", CHOICE), ("B.", CHOICE), ("Yes", {"answer": "yes"})],
    "crpe": [("B", "B. a cat"), ("it is a cat", "B. a cat"), ("A", "B. a cat")],
    "mathvision": [("B", CHOICE), ("14.0", {"answer": "14"}), ("It is 15", {"answer": "14"})],
    "mirb": [("3 dogs", {"answer": "3", "task": "count"}), ("A", {"answer": "B", "task": "food"})],
    "mmbench_circular": [(a, {**CHOICE, "index": i}) for a, i in (("B", 7), ("a dog", 1_000_007), ("B", 8))],
    "theoremqa": [(f"The answer is {n}", {"answer": "5", "Answer_type": "integer"}) for n in (4, 5, 5)],
    "mmmu_pro": CHOICES,
    "mmmu": [("(B)", CHOICE), ("no idea", CHOICE), ("about 3.14", {"answer": "3.14", "question_type": "open"})],
    "mathvista": [
        ("14", {"answer": "14", "answer_type": "integer"}),
        ("It is 1.26", {"answer": "1.3", "answer_type": "float", "precision": 1}),
        ("dog", {"answer": "cat", "choices": ["cat", "cow"], "question_type": "multi_choice"}),
    ],
    "pope": [
        ("Yes", {"answer": "yes", "category": "random"}),
        ("No", {"answer": "yes", "category": "popular"}),
        ("no", {"answer": "no", "category": "adversarial"}),
    ],
    "mme": [
        ("Yes", {"answer": "Yes", "category": "OCR", "image": "1"}),
        ("No", {"answer": "Yes", "category": "count", "image": "1"}),
        ("No", {"answer": "No", "category": "OCR", "image": "1"}),
    ],
    "hallusion": [
        ("yes", {"answer": "1", "category": "VD", "subcategory": "x", "set_id": 0, "figure_id": 0, "question_id": 0}),
        ("yes", {"answer": "0", "category": "VD", "subcategory": "x", "set_id": 0, "figure_id": 1, "question_id": 0}),
        ("no", {"answer": "0", "category": "VS", "subcategory": "x", "set_id": 0, "figure_id": 1, "question_id": 1}),
    ],
    "iou_at_50": [("[[0, 0, 10, 10]]", "[[0, 0, 10, 9]]"), ("?", "[[0, 0, 1, 1]]"), ("[[5,5,6,6]]", "[[0, 0, 9, 9]]")],
    "cider_d": [("a cat", ["a cat", "one cat"]), ("two dogs", ["dogs run"]), ("a red bus", ["the red bus"])],
    "ocrbench": [("it says STOP", ["stop"]), ("a", ["b"]), ("", ["c"])],
    "vcr": [("the red fox", ["red fox"]), ("x", ["y z"]), ("one two", ["one", "three"])],
    "exact_match": [("a  b", "a b"), ("A", "a"), ("三", ["三", "3"])],
}


@pytest.mark.parametrize("name", NAMES)
def test_the_promised_names_exist_and_score_under_their_own_name_first(name: str) -> None:
    answers, references = zip(*ROWS[name], strict=True)
    scores = getattr(metrics, name)(list(answers), list(references))
    assert next(iter(scores)) == name
    assert all(isinstance(value, float) for value in scores.values())
    assert metrics.METRICS[name][0] is getattr(metrics, name)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_rows_is_nothing(name: str) -> None:
    rows = ROWS[name] * 7
    metric, rng = getattr(metrics, name), np.random.default_rng(0)
    expected = metric([p for p, _ in rows], [r for _, r in rows])
    for _ in range(5):
        shuffled = [rows[i] for i in rng.permutation(len(rows))]
        assert metric([p for p, _ in shuffled], [r for _, r in shuffled]) == expected


@pytest.mark.parametrize("name", NAMES)
def test_unequal_or_no_answers_are_refused(name: str) -> None:
    metric = getattr(metrics, name)
    for predictions, references in (([], []), (["a"], []), (["a"], [ROWS[name][0][1]] * 2)):
        with pytest.raises(ValueError, match="cannot be scored"):
            metric(predictions, references)
    with pytest.raises(ValueError, match="not a text"):
        metric([None], [ROWS[name][0][1]])


@pytest.mark.parametrize("name", sorted(metrics.METRICS))
def test_the_judge_of_one_answer_agrees_with_the_metric(name: str) -> None:
    metric, judge = metrics.METRICS[name]
    if judge is None or name not in ROWS or name in GROUPED:
        return
    answers, references = map(list, zip(*ROWS[name], strict=True))
    assert metric(answers, references)[name] == average(judge(a, r) for a, r in zip(answers, references, strict=True))


@pytest.mark.parametrize(
    ("reference", "answers"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ({"answer": "a"}, ["a"]),
        ({"answers": ["a", "b"], "answer": "c"}, ["a", "b"]),
        (3, ["3"]),
    ],
)
def test_answers_of(reference: Any, answers: list[str]) -> None:
    assert answers_of(reference) == answers


def test_a_reference_without_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="answers or answer"):
        answers_of({"x": 1})
    with pytest.raises(ValueError, match="no answer"):
        answers_of([])
    with pytest.raises(ValueError, match="needs the field a or b"):
        field({"c": 1}, "a", "b")
    assert optional({"c": 1}, "a") is None and optional({"a": 0}, "a") == 0


@pytest.mark.parametrize(
    "reference",
    [
        {"options": ["x", "y"]},
        {"choices": "['x', 'y']"},
        {"options": {"A": "x", "B": "y"}},
        {"A": "x", "B": "y", "C": None},
    ],
)
def test_options_of(reference: Any) -> None:
    assert options_of(reference) == {"A": "x", "B": "y"}


def test_no_options() -> None:
    assert options_of("B") == {} and options_of({"answer": "B"}) == {}


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("abc", "abc", 0), ("你好", "你们好", 1), ("ab", "ba", 2)],
)
def test_edit_distance(a: str, b: str, distance: int) -> None:
    assert edit_distance(a, b) == edit_distance(b, a) == distance


def test_average_is_exact() -> None:
    assert average([1e16, 1.0, -1e16]) == 1 / 3 and average([]) == 0.0


def test_share_and_paired() -> None:
    assert share(lambda a, b: a == b, ["x", "y"], ["x", "z"]) == 0.5
    assert paired(["x"], [1]) == [("x", 1)]
