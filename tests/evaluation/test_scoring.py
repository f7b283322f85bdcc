"""From logged answers to scores, shares and the figures of tables."""

from __future__ import annotations

from typing import Any

import pytest

from internvl_lab.evaluation.judging.protocols import Opinions
from internvl_lab.evaluation.scoring import as_share, score_suite, summarise
from internvl_lab.evaluation.suites import Suite


def suite(metric: str = "exact_match", name: str = "t") -> Suite:
    return Suite(name, "T", "ocr", metric, (), 4)


def line(key: str, prediction: str, reference: Any, **more: Any) -> dict[str, Any]:
    return {"id": key, "prediction": prediction, "reference": reference, **more}


def test_counts() -> None:
    loop = "the same words again and again " * 20
    lines = [
        line("1", "red", "red"),
        line("2", loop, "blue"),
        line("3", "x", {}),
        line("4", "", "red", error="corrupt_image"),
    ]
    score = score_suite(suite(), lines, {"seed": 1})
    assert (score.n, score.num_skipped, score.num_unscored) == (2, 1, 1)
    assert (score.share, score.shown, score.blind) == (0.5, 50.0, None)
    assert score.looping == pytest.approx(1 / 3)
    assert score.errors == (("4", "corrupt_image"),) and score.settings == {"seed": 1}


def test_blind() -> None:
    lines = [line("1", "red", "red", blind_prediction="blue"), line("2", "x", "y", blind_prediction="y")]
    assert score_suite(suite(), lines, {}).blind == 0.5


def test_nothing_to_score() -> None:
    score = score_suite(suite(), [line("1", "x", {})], {})
    assert score.share is score.shown is score.blind is None and score.n == 0
    assert summarise([score])["overall"] == {"score": None, "blind": None, "n": 0}


@pytest.mark.parametrize(
    ("metric", "scores", "share"),
    [
        ("mme", {"mme": 300.0, "OCR": 200.0, "count": 100.0}, 0.75),
        ("ocrbench", {"ocrbench": 3.0, "accuracy": 0.75}, 0.75),
        ("cider_d", {"cider_d": 5.0}, 0.5),
        ("anls", {"anls": 0.5}, 0.5),
        ("anls", {}, None),
    ],
)
def test_as_share(metric: str, scores: dict[str, float], share: float | None) -> None:
    assert as_share(metric, scores) == share


def test_judged_sets_take_the_judges_scores() -> None:
    lines = [line("1", "a", {}), line("2", "b", {}), line("3", "c", {}, error="x")]
    score = score_suite(suite("judged"), lines, {}, Opinions({"1": 0.5, "9": 1.0}, "m"))
    assert (score.shown, score.n, score.num_unscored, score.num_skipped) == (0.5, 1, 1, 1)
    assert score_suite(suite("judged"), lines, {}).shown is None


def test_summary_has_the_main_jobs_shape() -> None:
    scores = [
        score_suite(suite(name="a"), [line("1", "x", "x", blind_prediction="y")], {}),
        score_suite(suite(name="b"), [line("1", "x", "y", blind_prediction="y")], {}),
        score_suite(suite("judged", "c"), [line("1", "x", {})], {}, Opinions({"1": 5.0}, "m")),
    ]
    summary = summarise(scores)
    assert summary["overall"] == {"score": 0.5, "blind": 0.5, "n": 3}
    assert {"score", "blind", "n"} <= set(summary["tasks"]["a"]) and summary["tasks"]["c"]["metrics"] == {"judge": 5.0}
