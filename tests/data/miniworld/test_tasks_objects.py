from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from random import Random

import numpy as np
import pytest

from internvl_lab.data.miniworld import tasks_objects as t
from internvl_lab.data.miniworld.draft import Draft, Question
from internvl_lab.data.miniworld.scene import Thing
from internvl_lab.data.miniworld.vocabulary import COLORS, PLURALS

THING = re.compile(r"(\w+) (\w+) at (\d) (\d)")
BOX = re.compile(r"<ref>(\w+) (\w+)</ref><box>\[\[(\d+), (\d+), (\d+), (\d+)\]\]</box>")


def _drafts(task: Callable[[Random, bool], Draft], number: int = 300) -> list[Draft]:
    rng = Random(0)
    return [task(rng, False) for _ in range(number)]


def _things(draft: Draft) -> list[tuple[str, str]]:
    return [(color, shape) for color, shape, _, _ in THING.findall(draft.scenes[0])]


def _questions(draft: Draft, existence: bool) -> list[Question]:
    return [question for question in draft.questions if (question.answer in ("yes", "no")) == existence]


def _boxes(draft: Draft) -> list[Question]:
    return [question for question in draft.questions if question.answer.startswith("<ref>")]


def test_captions_name_the_scene_in_reading_order() -> None:
    for draft in _drafts(t.captioning):
        words = re.findall(r"an? (\w+) (\w+)", draft.questions[0].answer)
        assert words == _things(draft)
        assert 1 <= len(words) <= 3
        assert draft.combinations == (draft.questions[0].answer,)


def test_counts_are_right_and_uniform() -> None:
    counts: Counter[str] = Counter()
    singular = {plural: shape for shape, plural in PLURALS.items()}
    for draft in _drafts(t.counting, 1200):
        shapes = [shape for _, shape in _things(draft)]
        *asking, total = draft.questions
        assert (total.prompt, total.answer) == (t.TOTAL_PROMPT, str(len(shapes)))
        for question in asking:
            asked = next(word for plural, word in singular.items() if plural in question.prompt)
            assert question.answer == str(shapes.count(asked))
        tally = draft.dense[1].answer
        assert sum(int(number) for number in re.findall(r"\d", tally)) == len(shapes)
        counts[draft.questions[0].answer] += 1
    assert set(counts) == set("12345")
    assert max(counts.values()) / 1200 < 0.25


@pytest.mark.parametrize("task", [t.attribute, t.existence])
def test_attribute_questions_have_one_answer(task: Callable[[Random, bool], Draft]) -> None:
    for draft in _drafts(task):
        things = _things(draft)
        for question in _questions(draft, existence=False):
            fitting = {
                (color if question.answer in COLORS else shape)
                for color, shape in things
                if re.search(rf"\b({shape if question.answer in COLORS else color})\b", question.prompt)
            }
            assert fitting == {question.answer}


def test_first_questions_are_those_of_the_task() -> None:
    assert all(draft.questions[0].answer in ("yes", "no") for draft in _drafts(t.existence))
    assert not any(draft.questions[0].answer in ("yes", "no") for draft in _drafts(t.attribute))
    assert all(draft.questions[0].answer.startswith("<ref>") for draft in _drafts(t.grounding))


def test_questions_of_other_tasks_keep_to_their_split_too() -> None:
    for draft in (*_drafts(t.captioning, 20), *_drafts(t.grounding, 20)):
        assert {task for task, _ in draft.also} == {"attribute", "existence"}


def test_existence_answers_are_right_balanced_and_often_hard() -> None:
    answers: Counter[str] = Counter()
    hard = 0
    for draft in _drafts(t.existence, 1000):
        things = _things(draft)
        for question in _questions(draft, existence=True):
            match = re.search(r" an? (\w+) (\w+)\?", question.prompt)
            known = any(_fits(question.prompt, thing) for thing in things) if match is None else match.groups() in things
            assert question.answer == ("yes" if known else "no")
        color, shape = re.findall(r"(\w+) (\w+)\?", draft.questions[0].prompt)[0]
        answers[draft.questions[0].answer] += 1
        mixed = any(color == c for c, _ in things) and any(shape == s for _, s in things)
        hard += draft.questions[0].answer == "no" and mixed
    assert answers["yes"] / 1000 == pytest.approx(0.5, abs=0.05)
    assert hard / answers["no"] > 0.4


def _fits(prompt: str, thing: tuple[str, str]) -> bool:
    color, shape = thing
    return prompt in (t.COLOR_EXISTS_PROMPT.format(color), t.SHAPE_EXISTS_PROMPT.format(shape))


def test_halves_are_those_of_the_boxes() -> None:
    for draft in _drafts(t.grounding, 60):
        centres = {}
        for question in _boxes(draft):
            match = BOX.fullmatch(question.answer)
            assert match is not None
            x0, y0, x1, y1 = (int(value) for value in match.groups()[2:])
            centres[f"{match[1]} {match[2]}"] = (x0 + x1, y0 + y1)
        asked = [q for q in draft.questions if q.answer in ("left", "right", "top", "bottom")]
        assert asked
        for question in asked:
            (across, down) = next(centre for name, centre in centres.items() if f"the {name} " in question.prompt)
            position, middle = (across, "left") if question.answer in ("left", "right") else (down, "top")
            assert (position < 1000) == (question.answer == middle)


def test_hard_absent_thing_mixes_what_is_there() -> None:
    things = [Thing("red", "circle"), Thing("blue", "star")]
    for seed in range(20):
        asked = t._absent_thing(Random(seed), things, hard=True)
        assert asked in (Thing("red", "star"), Thing("blue", "circle"))
        assert t._absent_thing(Random(seed), things, hard=False) not in things


def test_boxes_lie_on_the_lattice_and_on_the_object() -> None:
    for draft in _drafts(t.grounding, 150):
        (width, height), canvas = draft.sizes[0], draft.paint()[0]
        assert canvas.shape == (height, width, 3)
        for question, combination in zip(_boxes(draft), draft.combinations, strict=True):
            match = BOX.fullmatch(question.answer)
            assert match is not None
            assert f"{match[1]} {match[2]}" in question.prompt
            assert combination.endswith(question.answer)
            x0, y0, x1, y1 = (int(value) / 1000 for value in match.groups()[2:])
            columns, rows = (round(edge / min(width, height)) * t.LATTICE for edge in (width, height))
            for value, cells in ((x0, columns), (x1, columns), (y0, rows), (y1, rows)):
                assert abs(value * cells - round(value * cells)) < 0.02
            box = canvas[round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)]
            ink = (abs(box.astype(int) - COLORS[match[1]]).max(axis=2) <= 10).mean()
            assert ink > 0.15


def test_boxes_do_not_overlap() -> None:
    rng = Random(0)
    for _ in range(200):
        boxes = t._lattice_boxes(rng, 3, 14, 14)
        taken = np.zeros((14, 14), dtype=int)
        for x0, y0, x1, y1 in boxes:
            assert 0 <= x0 < x1 <= 14
            assert 0 <= y0 < y1 <= 14
            taken[y0:y1, x0:x1] += 1
        assert taken.max() == 1


def test_box_answer_is_the_authors_format() -> None:
    text = t.format_box(Thing("red", "circle"), (8, 16, 40, 112), 112, 224)
    assert text == "<ref>red circle</ref><box>[[71, 71, 357, 500]]</box>"
    assert t._describe_box(text) == "red circle 71 71 357 500"


@pytest.mark.parametrize("task", [t.captioning, t.counting, t.attribute, t.existence])
def test_every_scene_can_be_asked_for_its_table(task: Callable[[Random, bool], Draft]) -> None:
    for draft in _drafts(task, 50):
        table = draft.dense[0].answer
        assert [cell for cell in re.split(r"[,;] ", table) if cell != "none"] == [" ".join(p) for p in _things(draft)]
