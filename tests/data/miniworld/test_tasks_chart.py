from __future__ import annotations

from random import Random

import pytest

from internvl_lab.data.miniworld import tasks_chart as t
from internvl_lab.data.miniworld.vocabulary import COLORS


def _bars(listing: str) -> dict[str, int]:
    return {color: int(value) for color, value in (bar.split(" ") for bar in listing.split(", "))}


def test_answers_follow_from_the_bars() -> None:
    rng = Random(0)
    values = 0
    for _ in range(500):
        draft = t.chart(rng, False)
        bars = _bars(draft.combinations[0])
        assert 3 <= len(bars) <= 5
        for question in draft.questions:
            if question.answer.isdigit():
                color = next(color for color in bars if color in question.prompt)
                assert question.answer == str(bars[color])
                continue
            extreme = min if "lowest" in question.prompt or "shortest" in question.prompt else max
            assert [color for color, value in bars.items() if value == extreme(bars.values())] == [question.answer]
        values += draft.questions[0].answer.isdigit()
    assert values / 500 == pytest.approx(0.63, abs=0.08)


def test_bars_are_painted_as_high_as_their_values() -> None:
    rng = Random(1)
    for _ in range(60):
        draft = t.chart(rng, False)
        canvas = draft.paint()[0].astype(int)
        assert canvas.shape == (draft.sizes[0][1], draft.sizes[0][0], 3)
        for color, value in _bars(draft.combinations[0]).items():
            near = abs(canvas - COLORS[color]).max(axis=2) <= 10
            assert near.any(axis=1).sum() == value * t.UNIT
            assert near.any(axis=0).sum() >= 8


def test_highest_bar_fits_the_picture() -> None:
    canvas = t._paint_chart((112, 110), [("red", t.MAX_VALUE)], seed=0)
    assert canvas.shape == (110, 112, 3)
    assert (abs(canvas.astype(int) - COLORS["red"]).max(axis=2) <= 10).any(axis=1).sum() == t.MAX_VALUE * t.UNIT
