from __future__ import annotations

import re
from collections import Counter
from random import Random

import numpy as np

from internvl_lab.data.miniworld import tasks_sequence as t
from internvl_lab.data.miniworld.scene import Scene
from internvl_lab.data.miniworld.vocabulary import COLORS, DIRECTIONS


def _names(scene: Scene) -> set[str]:
    return {placed.thing.name for placed in scene.things}


def test_found_objects_are_in_one_image_only() -> None:
    rng = Random(0)
    for _ in range(200):
        scenes, questions = t._find(rng)
        assert len(scenes) in (2, 3)
        for question in questions:
            match = re.search(r" an? (\w+ \w+)\?", question.prompt)
            assert match is not None
            holding = [k for k, scene in enumerate(scenes, 1) if match[1] in _names(scene)]
            assert [f"Image-{k}" for k in holding] == [question.answer]


def test_change_keeps_everything_but_one_colour() -> None:
    rng = Random(1)
    for _ in range(200):
        (before, after), questions = t._change(rng)
        pairs = [(a, b) for a, b in zip(before.things, after.things, strict=True) if a != b]
        assert len(pairs) == 1
        old, new = pairs[0]
        assert (old.thing.shape, old.box) == (new.thing.shape, new.box)
        assert sum(placed.thing.shape == old.thing.shape for placed in before.things) == 1
        for question in questions:
            wants_old = "from" in question.prompt or "old" in question.prompt
            assert question.answer == (old if wants_old else new).thing.color
            assert old.thing.shape in question.prompt


def test_new_object_is_in_the_second_image_only() -> None:
    rng = Random(2)
    for _ in range(200):
        (before, after), questions = t._new(rng)
        (name,) = _names(after) - _names(before)
        assert questions[0].answer.split(" ", 1)[1] == name
        assert before.things


def test_multi_image_is_mostly_not_guessable() -> None:
    rng = Random(3)
    answers = Counter(t.multi_image(rng, False).questions[0].answer for _ in range(800))
    assert answers.most_common(1)[0][1] / 800 < 0.3


def test_multi_image_paints_one_picture_a_scene() -> None:
    draft = t.multi_image(Random(4), False)
    assert [(c.shape[1], c.shape[0]) for c in draft.paint()] == list(draft.sizes)
    assert len(draft.scenes) == len(draft.sizes) == draft.dense[0].answer.count("Image-")


def test_the_object_moves_where_the_answer_says_and_the_other_stays() -> None:
    rng = Random(5)
    directions = Counter()
    for _ in range(120):
        draft = t.video(rng, False)
        answers = {question.answer for question in draft.questions}
        (direction,) = answers & set(DIRECTIONS)
        (mover,) = (answer.removeprefix("the ") for answer in answers - set(DIRECTIONS))
        directions[direction] += 1
        centres = []
        for canvas in draft.paint():
            assert canvas.shape == (t.FRAME_SIZE, t.FRAME_SIZE, 3)
            color = COLORS[mover.split()[0]]
            rows, columns = np.nonzero(abs(canvas.astype(int) - color).max(axis=2) <= 10)
            centres.append((columns.mean(), rows.mean()))
        if draft.scenes[0].count(mover.split()[0]) > 1:  # both objects have this colour: pixels do not tell them apart
            continue
        steps = np.diff(np.array(centres), axis=0)
        dx, dy = DIRECTIONS[direction]
        assert (steps @ (dx, dy) > 15).all()
        assert (abs(steps @ (dy, dx)) < 2).all()
    assert len(directions) == 4


def test_objects_of_a_video_never_touch() -> None:
    rng = Random(6)
    for _ in range(200):
        draft = t.video(rng, False)
        for text in draft.scenes:
            cells = re.findall(r"at (\d) (\d)", text)
            assert cells[0] != cells[1]
        assert draft.is_video
        assert len(draft.sizes) == t.NUM_FRAMES


def test_scene_text_does_not_give_the_mover_away_by_its_place() -> None:
    rng = Random(7)
    first = 0
    for _ in range(200):
        draft = t.video(rng, False)
        (mover,) = (q.answer.removeprefix("the ") for q in draft.questions if q.answer not in DIRECTIONS)
        first += draft.scenes[0].startswith(mover)
    assert 60 < first < 140
