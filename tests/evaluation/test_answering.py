"""Questions are asked in chunks, logged, scored one by one, and skipped with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from internvl_lab.config import TilingConfig
from internvl_lab.errors import SampleError
from internvl_lab.evaluation.answer_log import AnswerLog
from internvl_lab.evaluation.answering import Answerer, check_item, has_answer, score_one
from internvl_lab.evaluation.items import Item
from internvl_lab.evaluation.suites import Suite
from internvl_lab.inference import Generator, Processor
from internvl_lab.models import InternVL
from internvl_lab.text import ChatTemplate

CHOICE = {"answer": "A", "options": {"A": "x", "B": "y"}}


def picture() -> list[Image.Image]:
    return [Image.new("RGB", (40, 40))]


def broken() -> list[Image.Image]:
    raise SampleError("k", "corrupt_image")


def item(key: str, reference: Any = "red", load: Any = picture, question: str = "What?") -> Item:
    return Item(key, question, reference, load)


def suite(*items: Item, metric: str = "exact_match") -> Suite:
    return Suite("t", "T", "ocr", metric, items, 4)


def run(answerer: Answerer, task: Suite, folder: Path) -> AnswerLog:
    log = AnswerLog(folder, "t", answerer.settings(task), answerer.chunk_size)
    answerer.run(task, log)
    return log


@pytest.fixture
def answerer(model: InternVL, template: ChatTemplate, tiling: TilingConfig) -> Answerer:
    return Answerer(model, template, tiling, batch_size=2, blind=True)


def test_answers_are_those_of_the_generator(answerer: Answerer, tmp_path: Path) -> None:
    task = suite(*(item(str(i), question="What? " * (i + 1)) for i in range(11)))
    log = run(answerer, task, tmp_path)
    processor, generator = (
        Processor(answerer.template, answerer.tiling),
        Generator(answerer.model, answerer.template, 4, 1),
    )
    for line, asked in zip(log.lines, task.items, strict=True):
        prompt = processor(asked.prompt(1), picture())
        assert line["prediction"] == generator.generate([prompt])[0].strip()
        assert line["blind_prediction"] == generator.generate([prompt], blind=True)[0].strip()
    assert [line.get("last") for line in log.lines] == [None] * 10 + [True]
    assert {line["settings"] for line in log.lines} == {log.stamp}


def test_scores_and_white_space(answerer: Answerer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Generator, "generate", lambda self, p, blind=False: ["blue" if blind else " red\n"] * len(p))
    (line,) = run(answerer, suite(item("1")), tmp_path).lines
    assert (line["prediction"], line["score"], line["blind_score"]) == ("red", 1.0, 0.0)
    assert line["question"] == "What?" and line["reference"] == "red"


def test_faults_are_counted_skips(answerer: Answerer, tmp_path: Path) -> None:
    items = (item("1", CHOICE), item("2", CHOICE, broken), item("3", CHOICE, question=" "), item("4", {"answer": "A"}))
    lines = run(answerer, suite(*items, metric="multiple_choice"), tmp_path).lines
    assert ["error" in line for line in lines] == [False, True, True, True]
    assert "corrupt_image" in lines[1]["error"] and lines[1]["score"] is None
    assert "empty_question" in lines[2]["error"] and "missing_option" in lines[3]["error"]


def test_answers_to_other_questions_are_not_taken_over(answerer: Answerer, tmp_path: Path) -> None:
    """A corrected or sorted file of as many rows: answers are found again by their place."""
    run(answerer, suite(item("1"), item("2")), tmp_path)
    again = run(answerer, suite(item("2"), item("1")), tmp_path)
    assert [line["id"] for line in again.lines] == ["2", "1"]
    corrected = run(answerer, suite(item("2"), item("1", "blue")), tmp_path)
    assert corrected.lines[1]["reference"] == "blue"


def test_a_question_that_is_no_text_is_a_counted_skip(answerer: Answerer, tmp_path: Path) -> None:
    (line,) = run(answerer, suite(item("1", question="\ud83d?")), tmp_path).lines
    assert "broken_text" in line["error"] and line["question"] == "\ud83d?"


def test_a_chunk_of_faults_alone(answerer: Answerer, tmp_path: Path) -> None:
    assert all(line["error"] for line in run(answerer, suite(item("1", load=broken)), tmp_path).lines)


def test_check_item() -> None:
    check_item("multiple_choice", item("1", CHOICE))
    check_item("multiple_choice", item("1", {"options": {"A": "x"}}))  # a test set without answers
    with pytest.raises(SampleError, match="the right option 'C' is not among A, B"):
        check_item("multiple_choice", item("1", {**CHOICE, "answer": "C"}))


@pytest.mark.parametrize(
    ("reference", "known"),
    [("a", True), ("", False), ({"answer": "a"}, True), ({"answer": "?"}, False), ({}, False), ({"bbox": [1]}, True)],
)
def test_has_answer(reference: Any, known: bool) -> None:
    assert has_answer(reference) is known


def test_score_one() -> None:
    assert score_one("anls", "hallo", {"answer": "hello"}) == pytest.approx(0.8)
    assert score_one("anls", "x", {}) is score_one("cider_d", "x", "x") is score_one("judged", "x", "x") is None
