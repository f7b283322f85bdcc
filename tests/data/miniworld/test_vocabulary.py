from __future__ import annotations

from itertools import combinations

from internvl_lab.data.miniworld import vocabulary


def test_task_names_are_those_of_the_issue() -> None:
    names = "captioning counting attribute existence ocr document chart grounding multi_image video text_only"
    assert " ".join(vocabulary.TASKS) == names


def test_colors_are_far_apart() -> None:
    for a, b in combinations(vocabulary.COLORS.values(), 2):
        assert sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5 > 90


def test_field_names_fit_their_four_cells_and_belong_to_one_kind() -> None:
    assert not set(vocabulary.NUMBER_KEYS) & set(vocabulary.WORD_KEYS)
    assert max(len(key) for key in vocabulary.NUMBER_KEYS + vocabulary.WORD_KEYS) <= 4


def test_plurals() -> None:
    assert vocabulary.PLURALS["cross"] == "crosses"
    assert vocabulary.PLURALS["star"] == "stars"


def test_directions_are_unit_steps() -> None:
    assert all(abs(dx) + abs(dy) == 1 for dx, dy in vocabulary.DIRECTIONS.values())
    assert len(set(vocabulary.DIRECTIONS.values())) == 4
