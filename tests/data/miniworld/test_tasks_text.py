from __future__ import annotations

from random import Random

import numpy as np
import pytest

from internvl_lab.config import TilingConfig
from internvl_lab.data.miniworld import tasks_text as t
from internvl_lab.data.miniworld.draft import Draft
from internvl_lab.data.miniworld.vocabulary import NUMBER_KEYS, OCR_ALPHABET
from internvl_lab.data.tiling import count_tiles


def _ink_columns(draft: Draft) -> np.ndarray:
    """Columns that hold ink, told from paper by their distance to the median colour."""
    canvas = draft.paint()[0].astype(int)
    paper = np.median(canvas.reshape(-1, 3), axis=0)
    return np.flatnonzero((abs(canvas - paper).max(axis=2) > 40).any(axis=0))


def test_strings_have_the_promised_lengths_and_characters() -> None:
    rng = Random(0)
    lengths = set()
    for _ in range(400):
        draft = t.ocr(rng, False)
        text = draft.questions[0].answer
        assert set(text) <= set(OCR_ALPHABET)
        assert draft.combinations == (text,)
        lengths.add((len(text), draft.sizes[0][0] > 150))
    assert lengths == {(3, False), (4, False), (5, True), (6, True)}


def test_written_text_is_inside_the_picture_and_as_wide_as_its_string() -> None:
    rng = Random(1)
    for _ in range(100):
        draft = t.ocr(rng, False)
        canvas = draft.paint()[0]
        width, height = draft.sizes[0]
        assert canvas.shape == (height, width, 3)
        columns = _ink_columns(draft)
        pitches = (columns.max() - columns.min()) / t.CELL
        assert pitches == pytest.approx(len(draft.questions[0].answer) - 0.4, abs=0.45)


def test_dense_pictures_have_several_lines() -> None:
    rng = Random(2)
    for _ in range(50):
        draft = t.ocr(rng, True)
        lines = draft.questions[0].answer.split("\n")
        assert 2 <= len(lines) <= 3
        assert draft.combinations == tuple(lines)
        assert draft.questions[0].prompt == t.LINES_PROMPT


def test_pages_need_several_tiles_and_answers_stand_on_them() -> None:
    rng = Random(3)
    cfg = TilingConfig(tile_size=112, num_visual_tokens=16, max_tiles=6)
    for _ in range(200):
        draft = t.document(rng, False)
        assert count_tiles(*draft.sizes[0], cfg) >= 4
        fields = dict(line.split(": ") for line in draft.dense[0].answer.split("\n"))
        assert 4 <= len(fields) <= 8
        assert len(draft.questions) == len(fields) == len(draft.combinations)
        for question, combination in zip(draft.questions, draft.combinations, strict=True):
            key, value = combination.split(": ")
            assert fields[key] == value == question.answer
            assert f" {key}" in question.prompt
            assert len(value) == 3
            assert value.isdigit() == (key in NUMBER_KEYS)


def test_page_shows_its_fields() -> None:
    fields, slots = [("cost", "123")], [(2, 1)]
    page = t._paint_form((224, 224), fields, slots, seed=4)
    empty = t._paint_form((224, 224), [], [], seed=4)
    rows, columns = np.nonzero((page != empty).any(axis=2))
    assert page.shape == (224, 224, 3)
    assert columns.min() >= 112
    assert columns.max() < 224
    assert rows.min() >= 2 * t.CELL
    assert rows.max() < 3 * t.CELL


def test_fields_of_one_page_differ_in_key() -> None:
    rng = Random(5)
    for _ in range(50):
        keys = [combination.split(": ")[0] for combination in t.document(rng, False).combinations]
        assert len(set(keys)) == len(keys)


def test_ink_stands_out_from_paper() -> None:
    rng = Random(6)
    for _ in range(200):
        paper, ink = t.random_ink(rng)
        assert max(abs(p - i) for p, i in zip(paper, ink, strict=True)) > 90
