"""A judge is asked as its benchmark asks it, once for each answer, whatever happens in between."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from internvl_lab.config.asking import AskingConfig
from internvl_lab.errors import BudgetError, JudgeError
from internvl_lab.evaluation.items import Item
from internvl_lab.evaluation.judging.opinions import ask_judge
from internvl_lab.evaluation.judging.protocols import Opinions
from internvl_lab.evaluation.suites import Suite


def suite(name: str, *keys: str) -> Suite:
    picture = Image.new("RGB", (8, 8), "red")
    items = tuple(Item(key, "q", {}, lambda: [picture]) for key in keys)
    return Suite(name, name, "comprehensive", "judged", items, 9)


def line(key: str, prediction: str, **fields: Any) -> dict[str, Any]:
    reference = {"question": f"Question {key}?", "answer": "red", "claude3_sonnet": "theirs", **fields}
    return {"id": key, "question": "q", "prediction": prediction, "reference": reference}


@pytest.fixture
def ask(server: Any, tmp_path: Path) -> Callable[..., Opinions]:
    """Give a maker of opinions about (prediction, ...) that retries at once."""

    def make(name: str, *predictions: str, **changes: Any) -> Opinions:
        fields = {name: changes.pop(name) for name in ("image_content", "grading_query") if name in changes}
        settings: dict[str, Any] = {"model": "m", "url": server.url, "first_delay_s": 0.0, "concurrency": 1, **changes}
        lines = [line(str(number), prediction, **fields) for number, prediction in enumerate(predictions)]
        keys = (str(number) for number in range(len(predictions)))
        return ask_judge(AskingConfig("openai", **settings), suite(name, *keys), lines, tmp_path)

    return make


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / f"{name}.answers.jsonl").read_text().splitlines()]


def test_an_unreadable_answer_is_asked_again_at_the_next_temperature(
    server: Any, ask: Callable[..., Opinions], tmp_path: Path
) -> None:
    server.reply = lambda text, request: "0.7" if "good" in text or request["temperature"] == 1.0 else "well, 0.5"
    opinions = ask("mmvet", "good", "bad")
    assert opinions.scores == {"0": 0.7, "1": 0.7}
    assert opinions.judge == "m, as open-compass/VLMEvalKit, vlmeval/dataset/utils/mmvet.py"
    assert [request["temperature"] for request in server.requests] == [0.0, 0.0, 0.5, 1.0]
    assert {request["max_tokens"] for request in server.requests} == {3}
    assert [len(request["messages"]) for request in server.requests] == [1] * 4
    assert [(row["score"], row["reply"], row["tries"]) for row in rows(tmp_path, "mmvet")] == [
        (0.7, "0.7", 1),
        (0.7, "0.7", 3),
    ]
    record = json.loads((tmp_path / "mmvet.judge.json").read_text())
    assert record["judge"] == "m" and len(record["tries"]) == 5 and server.url not in json.dumps(record)


@pytest.mark.parametrize(("name", "score"), [("mmvet", 0.0), ("mmhal", 0.0), ("mmbench_video", -1.0)])
def test_what_no_try_can_read_counts_as_the_official_scorer_counts_it(
    server: Any, ask: Callable[..., Opinions], name: str, score: float
) -> None:
    server.reply = lambda text, request: "no idea"
    assert ask(name, "a", image_content=["cat"]).scores == {"0": score}


def test_without_an_official_protocol_an_unreadable_answer_is_no_score(
    server: Any, ask: Callable[..., Opinions]
) -> None:
    server.reply = lambda text, request: "1" if "good" in text else "no idea"
    assert ask("another", "good", "bad").scores == {"0": 1.0}


def test_pictures_and_the_system_prompt_go_along(server: Any, ask: Callable[..., Opinions]) -> None:
    server.reply = lambda text, request: "verdict [[B>A]]" if "better answer" in text else "[[A>B]] [[B>A]]"
    assert ask("wildvision", "better answer", "worse").scores == {"0": 1.0, "1": 0.0}
    system, user = server.requests[0]["messages"]
    assert system["role"] == "system" and system["content"].startswith("Please act as an impartial judge")
    text, picture = user["content"]
    assert "theirs" in text["text"] and picture["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert len(server.requests) == 3  # the unreadable one twice


def test_the_judge_s_prompt_may_come_with_the_file(server: Any, ask: Callable[..., Opinions], tmp_path: Path) -> None:
    server.reply = lambda text, request: '{"score": 1}' if text == "Grade: 7!" else "no JSON"
    assert ask("charxiv_rq", "7", "8", grading_query="Grade: {PREDICTION}!").scores == {"0": 1.0, "1": 0.0}
    assert len(server.requests) == 1 + 10 and server.requests[0]["response_format"] == {"type": "json_object"}


def test_nothing_is_paid_twice(server: Any, ask: Callable[..., Opinions], tmp_path: Path) -> None:
    server.reply = lambda text, request: "0.1"
    with pytest.raises(BudgetError, match=r"judge\.max_calls=2"):
        ask("mmvet", "a", "b", "c", max_calls=2)
    assert not (tmp_path / "mmvet.answers.jsonl").exists() and len(server.requests) == 2
    assert ask("mmvet", "a", "b", "c").scores == {"0": 0.1, "1": 0.1, "2": 0.1}
    assert len(server.requests) == 3
    first = (tmp_path / "mmvet.answers.jsonl").read_bytes()
    ask("mmvet", "a", "b", "c")
    assert len(server.requests) == 3 and (tmp_path / "mmvet.answers.jsonl").read_bytes() == first


def test_a_dead_judge_is_an_error_and_a_refused_question_has_no_score(
    server: Any, ask: Callable[..., Opinions], tmp_path: Path
) -> None:
    with pytest.raises(JudgeError, match="refuses requests"):
        ask("mmvet", "[401 1]")
    server.reply = lambda text, request: "0.4"
    assert ask("mmvet", "[400 1]", "fine").scores == {"1": 0.4}
    assert [row["reply"][:11] for row in rows(tmp_path, "mmvet")] == ["(no answer:", "0.4"]
