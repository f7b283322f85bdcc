"""OCRBench's substring rule and counts, MTVQA's containment, VCR's best stretch."""

from __future__ import annotations

from typing import Any

import pytest

from internvl_lab.evaluation.metrics import contained, ocrbench, vcr
from internvl_lab.evaluation.metrics.ocr import FORMULAS, is_contained, is_ocrbench, score_vcr

FORMULA = {"answers": ["x ^ { 2 }"], "type": FORMULAS, "dataset_name": "HME100k"}


@pytest.mark.parametrize(
    ("prediction", "reference", "right"),
    [
        ("The sign says STOP.", "stop", True),
        ("St op", "stop", False),
        ("centre\nville", ["centre ville"], True),
        ("$3.50", "3.5", True),
        ("1000", "1,000", False),
        ("", "x", False),
        ("anything", "", True),
        ("北京欢迎你", ["北京"], True),
        ("x^{2}", FORMULA, True),
        ("x ^ { 2 } + 1", FORMULA, True),
        ("X^{2}", FORMULA, False),  # case counts for formulas
        ("x^{2}", {"answers": ["x^{2}"], "dataset_name": "HME100k"}, True),
    ],
)
def test_is_ocrbench(prediction: str, reference: Any, right: bool) -> None:
    assert is_ocrbench(prediction, reference) is right


def test_counts() -> None:
    references = [
        {"answers": "a", "type": "Regular Text Recognition"},
        {"answers": "b", "category": "Digit String Recognition"},
        {"answers": ["c"], "type": "Doc-oriented VQA"},
        FORMULA,
    ]
    scores = ocrbench(["a", "b", "x", "x^{2}"], references)
    assert (scores["ocrbench"], scores["accuracy"], scores["Text Recognition"]) == (3.0, 0.75, 2.0)
    assert (scores["Doc-oriented VQA"], scores[FORMULAS]) == (0.0, 1.0)
    assert ocrbench(["a"], ["a"]) == {"ocrbench": 1.0, "accuracy": 1.0}
    with pytest.raises(ValueError, match="no category 'Poems'"):
        ocrbench(["a"], [{"answers": "a", "type": "Poems"}])


def test_contained() -> None:
    assert contained(["It is 3.50 EUR", "no"], ["350 eur", ["x", "y"]]) == {"contained": 0.5}
    assert is_contained("U.S.", "us")


@pytest.mark.parametrize(
    ("prediction", "covered", "scores"),
    [
        ("the quick brown fox", ["quick brown"], [(1.0, 1.0)]),
        ("the quick red fox", ["quick brown"], [(0.0, 1 / 3)]),
        ("The Quick brown", ["quick brown"], [(0.0, 1 / 3)]),  # case counts
        ("fox's den", ["fox's den"], [(1.0, 1.0)]),
        ("quick", ["quick brown"], [(0.0, 0.0)]),  # shorter than what is covered
        ("nothing alike here", ["quick brown"], [(0.0, 0.0)]),
        ("", ["quick"], [(0.0, 0.0)]),
        ("I'm sorry, quick brown", ["quick brown"], [(0.0, 0.0)]),
        ("User: x Assistant: quick brown", ["quick brown"], [(1.0, 1.0)]),
        ("one two three", ["one", "three four"], [(1.0, 1.0), (0.0, 1 / 3)]),
        ("well-known,", ["well-known"], [(1.0, 1.0)]),
    ],
)
def test_score_vcr(prediction: str, covered: list[str], scores: list[tuple[float, float]]) -> None:
    assert score_vcr(prediction, covered) == [pytest.approx(score) for score in scores]


def test_chinese_is_compared_by_characters() -> None:
    assert vcr(["北京欢迎你"], [{"answer": ["欢迎"], "language": "zh"}])["vcr"] == 1.0


def test_vcr_averages_over_covered_texts() -> None:
    scores = vcr(["a b", "c"], [["a", "x", "b"], "c"])
    assert scores == {"vcr": 0.75, "exact_match": 0.75, "jaccard": 0.75}
