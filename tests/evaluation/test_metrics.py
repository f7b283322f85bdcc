"""Metrics against hand-made cases."""

from __future__ import annotations

import pytest

from internvl_lab.evaluation.metrics import (
    JUDGES,
    box_iou,
    exact_match,
    iou_at_50,
    is_box_hit,
    is_exact,
    normalise_answer,
    parse_box,
)


@pytest.mark.parametrize(
    ("prediction", "reference", "right"),
    [
        ("red", "red", True),
        ("  red\n", "red", True),
        ("a  red\tcircle", "a red circle", True),
        ("Red", "red", False),
        ("red.", "red", False),
        ("", "red", False),
        ("", "", True),
        ("redcircle", "red circle", False),
        ("三 个", "三 个", True),
    ],
)
def test_is_exact(prediction: str, reference: str, right: bool) -> None:
    assert is_exact(prediction, reference) is right


def test_normalise_answer() -> None:
    assert normalise_answer(" a \n b\u00a0c ") == "a b c"


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("<box>[[1, 2, 3, 4]]</box>", (1, 2, 3, 4)),
        ("[[1,2,3,4]]", (1, 2, 3, 4)),
        ("[[ 10 ,20, 30, 1000 ]] and more", (10, 20, 30, 1000)),
        ("[[1, 2, 3, 4]] [[5, 6, 7, 8]]", (1, 2, 3, 4)),
        ("[1, 2, 3, 4]", None),
        ("[[1, 2, 3]]", None),
        ("[[1, 2, 3, 4, 5]]", None),
        ("[[1.5, 2, 3, 4]]", None),
        ("[[-1, 2, 3, 4]]", None),
        ("[[1, 2, 3, 1001]]", None),
        ("[[3, 2, 3, 4]]", None),
        ("[[1, 4, 3, 2]]", None),
        ("[[1, 2, 3, 4], [5, 6, 7, 8]]", None),
        ("", None),
    ],
)
def test_parse_box(text: str, box: tuple[int, int, int, int] | None) -> None:
    assert parse_box(text) == box


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (0, 0, 10, 5), 0.5),
        ((0, 0, 10, 10), (5, 5, 15, 15), 25 / 175),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),
        ((0, 0, 10, 10), (50, 50, 60, 60), 0.0),
    ],
)
def test_box_iou(a: tuple[int, int, int, int], b: tuple[int, int, int, int], iou: float) -> None:
    assert box_iou(a, b) == pytest.approx(iou)
    assert box_iou(b, a) == pytest.approx(iou)


def test_the_threshold_is_inclusive() -> None:
    assert is_box_hit("[[0, 0, 10, 5]]", "[[0, 0, 10, 10]]")
    assert not is_box_hit("[[0, 0, 1000, 499]]", "[[0, 0, 1000, 1000]]")


def test_no_box_scores_nothing() -> None:
    assert not is_box_hit("at the left", "<box>[[0, 0, 10, 10]]</box>")


def test_a_reference_without_box_is_a_fault() -> None:
    with pytest.raises(ValueError, match="left side"):
        is_box_hit("[[0, 0, 1, 1]]", "left side")


def test_exact_match_averages() -> None:
    assert exact_match(["red", "two ", "no"], ["red", "two", "yes"]) == {"exact_match": pytest.approx(2 / 3)}


def test_iou_at_50_averages() -> None:
    assert iou_at_50(["[[0, 0, 10, 10]]", "?"], ["[[0, 0, 10, 9]]", "[[0, 0, 1, 1]]"]) == {"iou_at_50": 0.5}


@pytest.mark.parametrize(("predictions", "references"), [([], []), (["a"], []), (["a"], ["a", "b"])])
def test_unequal_or_no_answers_are_refused(predictions: list[str], references: list[str]) -> None:
    with pytest.raises(ValueError, match="cannot be scored"):
        exact_match(predictions, references)


def test_judges_and_metrics_agree() -> None:
    answers, references = ["[[0, 0, 10, 10]]", "x"], ["[[0, 0, 10, 10]]", "[[0, 0, 1, 1]]"]
    for metric, function in (("exact_match", exact_match), ("iou_at_50", iou_at_50)):
        judged = [JUDGES[metric](a, r) for a, r in zip(answers, references, strict=True)]
        assert function(answers, references) == {metric: sum(judged) / 2}
