"""Scores and the files that make an evaluation resumable."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from internvl_lab.evaluation.results import EvaluationResult, Prediction, PredictionStore, TaskResult


def prediction(key: str, correct: bool, blind: bool | None = False, error: str = "") -> Prediction:
    text = None if blind is None else "x"
    return Prediction(key, "question?", "yes", "yes" if correct else "no", correct, text, blind, error)


def task(name: str, *predictions: Prediction) -> TaskResult:
    return TaskResult(name, "exact_match", predictions)


def test_task_scores() -> None:
    result = task(
        "a", prediction("1", True), prediction("2", True, True), prediction("3", False), prediction("4", False)
    )
    assert (result.score, result.blind, result.n, result.num_skipped) == (0.5, 0.25, 4, 0)


def test_a_failed_sample_is_counted_and_not_scored() -> None:
    result = task("a", prediction("1", True), prediction("2", False, None, error="corrupt_image"))
    assert (result.score, result.blind, result.n, result.num_skipped) == (1.0, 0.0, 1, 1)


def test_a_task_without_answers_scores_nothing() -> None:
    result = task("a", prediction("1", False, None, error="corrupt_image"))
    assert (result.score, result.n) == (0.0, 0)


def test_overall_is_the_unweighted_mean_over_tasks() -> None:
    small, large = task("a", prediction("1", True, True)), task("b", *(prediction(str(i), False) for i in range(9)))
    result = EvaluationResult((small, large))
    assert result.metrics() == {
        "overall": {"score": 0.5, "blind": 0.5, "n": 10},
        "tasks": {
            "a": {"score": 1.0, "blind": 1.0, "n": 1},
            "b": {"score": 0.0, "blind": 0.0, "n": 9},
        },
        "looping": {"overall": 0.0, "a": 0.0, "b": 0.0},
    }


def test_looping_answers_are_counted_over_all_answers() -> None:
    loop = replace(prediction("1", False), prediction="So it is red. " * 20)
    broken = replace(loop, error="corrupt_image")
    result = EvaluationResult((task("a", loop, broken), task("b", *(prediction(str(i), True) for i in range(3)))))
    metrics = result.metrics()
    assert list(metrics["looping"].values()) == [0.25, 1.0, 0.0]


def test_no_blind_run_is_null() -> None:
    result = EvaluationResult((task("a", prediction("1", True, None)), task("b", prediction("2", True))))
    assert result.metrics()["overall"]["blind"] is None
    assert result.metrics()["tasks"]["a"]["blind"] is None


def test_store_gives_back_what_was_saved(tmp_path: Path) -> None:
    saved = (
        prediction("1", True),
        prediction("2", False, None, "corrupt_image"),
        Prediction("3", "多?\n", "一", "", False),
    )
    PredictionStore(tmp_path, {"weights": "w"}).save("ocr", saved)
    store = PredictionStore(tmp_path, {"weights": "w"})
    assert store.load("ocr") == saved
    assert store.load("chart") is None
    lines = (tmp_path / "ocr.jsonl").read_text(encoding="utf-8").splitlines()
    assert {"key", "question", "reference", "prediction", "blind_prediction", "correct"} <= json.loads(lines[0]).keys()
    assert "一" in lines[2]


def test_other_settings_drop_old_predictions(tmp_path: Path) -> None:
    PredictionStore(tmp_path, {"weights": "w"}).save("ocr", (prediction("1", True),))
    (tmp_path / "notes.txt").write_text("mine")
    assert PredictionStore(tmp_path, {"weights": "v"}).load("ocr") is None
    assert PredictionStore(tmp_path, {"weights": "w"}).load("ocr") is None
    assert (tmp_path / "notes.txt").exists()


def test_store_without_folder_keeps_nothing() -> None:
    store = PredictionStore(None, {})
    store.save("ocr", (prediction("1", True),))
    assert store.load("ocr") is None
