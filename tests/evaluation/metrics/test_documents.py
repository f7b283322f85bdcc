"""ANLS and relaxed accuracy on hand-computed cases."""

from __future__ import annotations

from typing import Any

import pytest

from internvl_lab.evaluation.metrics import anls, relaxed_accuracy
from internvl_lab.evaluation.metrics.documents import anls_of, is_relaxed, is_relaxed_as_run


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("Paris", "paris", 1.0),
        ("  paris ", "Paris", 1.0),
        ("new   york", "New York", 1.0),  # no distance, so the length does not matter
        ("new   yorc", "New York", 0.9),  # 1 edit over the raw 10 characters, not over 8
        ("hallo", "hello", 0.8),
        ("ab", "ax", 0.5),  # 0.5 itself counts
        ("abc", "axx", 0.0),  # 1/3 is below the threshold
        ("", "hello", 0.0),
        ("", "", 1.0),
        ("12%", "12", 1 - 1 / 3),
        ("1,000", "1000", 0.8),
        ("$5.00", ["5.00", "$5.0"], 0.8),
        ("北京市", ["北京"], 1 - 1 / 3),
        ("answer: yes", ["yes", "yes it is"], 0.0),
    ],
)
def test_anls(prediction: str, reference: Any, score: float) -> None:
    assert anls_of(prediction, reference) == pytest.approx(score, abs=1e-12)


def test_anls_averages() -> None:
    assert anls(["hallo", "x"], ["hello", {"answers": ["y"]}]) == {"anls": pytest.approx(0.4)}


@pytest.mark.parametrize(
    ("prediction", "reference", "right", "as_run"),
    [
        ("100", "100", True, True),
        ("105", "100", True, True),  # 5 % itself counts
        ("95", "100", True, False),  # 5 % of the reference, 5.3 % of the prediction
        ("105.2", "100", False, True),
        ("94.9", "100", False, False),
        ("-95", "-100", True, False),
        ("5", "-5", False, False),
        ("50%", "0.5", True, True),
        ("50%", "50", False, False),
        ("50", "50%", False, False),
        ("52%", "50%", True, True),
        ("50%%", "0.5", True, True),
        ("1,000", "1000", False, False),  # a comma makes a text of it
        ("$100", "100", False, False),
        ("100 km", "100", False, False),
        ("100.", "100", True, True),  # Python reads the dot
        (" 100 ", "100", True, True),
        ("1e2", "100", True, True),
        ("0", "0", True, True),
        ("0.0", "0", False, False),  # against 0 only the same text is right
        ("0.001", "0", False, False),
        ("0", "0.001", False, False),
        ("Yes", "yes", True, True),
        ("Yes.", "yes", False, False),
        ("", "", True, True),
        ("", "1", False, False),
        ("中国", "中国", True, True),
        ("b", ["a", "B"], True, True),
    ],
)
def test_relaxed(prediction: str, reference: Any, right: bool, as_run: bool) -> None:
    assert is_relaxed(prediction, reference) is right
    assert is_relaxed_as_run(prediction, reference) is as_run


def test_relaxed_accuracy_averages() -> None:
    scores = relaxed_accuracy(["95", "x"], ["100", "y"])
    assert scores == {"relaxed_accuracy": 0.5, "relaxed_accuracy_as_run": 0.0}
