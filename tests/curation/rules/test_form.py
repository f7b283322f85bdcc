from __future__ import annotations

import pytest

from internvl_lab.curation.rules.form import boxes, copied_question, language, placeholders


def talk(question: str, answer: str) -> list[tuple[str, str]]:
    return [("human", question), ("gpt", answer)]


@pytest.mark.parametrize(
    ("question", "answer", "faults"),
    [
        ("<image>\nWhat?", "a <b>", 0),
        ("<video>\nWhat?", 'svg: <image href="x.png"/>', 0),
        ("<image\nWhat?", "red", 1),
        ("< image >\nWhat?", "red", 1),
        ("<Image> or </image>?", "red", 2),
        ("What?", "<image> red", 1),
        ("What?", "red<|im_end|>", 1),
        ("What? <IMG_CONTEXT>", "red<|endoftext|>", 2),
    ],
)
def test_placeholders(question, answer, faults):
    assert placeholders(talk(question, answer)).score == faults


SOUND = "<ref>cat</ref><box>[[1, 2, 30, 40]]</box>"


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (SOUND, 0),
        (SOUND + "\n" + SOUND, 0),
        ("<ref>cats</ref><box>[[1, 2, 30, 40], [0, 0, 1000, 1000]]</box>", 0),
        ("<box>[[1, 2, 1, 2]]</box>", 0),
        ("<quad>anything</quad>", 0),
        ("a < b, <reference>", 0),
        ("<ref>cat<box>[[1, 2, 30, 40]]</box>", 1),
        ("<box>[[1, 2, 30, 40]]", 1),
        ("[[1, 2, 30, 40]]</box>", 1),
        ("<ref> </ref>", 1),
        ("<box>[1, 2, 30, 40]</box>", 1),
        ("<box>[[1, 2, 30]]</box>", 1),
        ("<box>[[0.1, 0.2, 0.3, 0.4]]</box>", 1),
        ("<box></box>", 1),
        ("<box>[[1, 2, 1001, 40]]</box>", 1),
        ("<box>[[30, 2, 1, 40]]</box>", 1),
        ("<box>[[1, 40, 30, 2]]</box>", 1),
        ("<ref>a</ref><box>[[1, 2, 3000, 4]]</box><ref></ref>", 2),
    ],
)
def test_boxes(text, faults):
    assert boxes(talk("Where?", text)).score == faults


def test_share_of_the_answer_that_is_the_question():
    question = "What does the old bridge look like?"
    assert copied_question(talk(f"<image>\n{question}", question.upper())).score == 1
    assert copied_question(talk(question, f"{question} {question}")).score == pytest.approx(1, abs=0.02)
    assert copied_question(talk(question, f"{question} It is made of stone and moss.")).score < 0.6
    assert copied_question(talk("Yes or no?", "Yes or no?")).score == 0  # too short to be a copy
    assert copied_question(talk(f"Repeat: {question}", question)).score == 0


def test_letters_in_other_scripts():
    turns = talk("What is it?", "a bridge 桥桥")
    assert language(turns, ("latin",)).score == pytest.approx(2 / 9)
    assert language(turns, ("latin", "han")).score == 0
    assert language(turns, ()).score == 0
    assert language(talk("桥?", "über"), ("latin",)).score == 0
    assert language(talk("?", "12 + 3"), ("latin",)).score == 0
