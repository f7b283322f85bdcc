"""Columns read like the lists they replace, and rows with their ragged parts can be picked and joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from internvl_lab.data.columns import TextColumn, columns_from, concatenate, pick_ragged, starts, take
from internvl_lab.data.index import ShardIndex, build_index
from internvl_lab.text import ChatTemplate

TEXTS = ["a", "", "zwölf", "七", "bad\udcff"]


@pytest.fixture(scope="module")
def index(shards_dir: Path, template: ChatTemplate) -> ShardIndex:
    return build_index(shards_dir, template)


def test_text_column_is_a_sequence_of_texts() -> None:
    column = TextColumn.of(TEXTS)
    assert column.tolist() == list(column) == TEXTS == [column[i] for i in range(5)]
    assert (len(column), column[-1], column.encoded(3)) == (5, TEXTS[-1], "七".encode())
    assert column.take(np.array([2, 0, 2])).tolist() == ["zwölf", "a", "zwölf"]
    assert TextColumn.concatenate([column, TextColumn.of([]), column]).tolist() == TEXTS * 2
    assert TextColumn.of([]).tolist() == []


def test_pick_ragged() -> None:
    start = starts(np.array([2, 0, 3, 1]))
    assert start.tolist() == [0, 2, 2, 5, 6]
    picked, new = pick_ragged(start, np.array([2, 1, 0]))
    assert picked.tolist() == [2, 3, 4, 0, 1] and new.tolist() == [0, 3, 3, 5]


def test_rows_keep_their_images_and_rounds(index: ShardIndex) -> None:
    rows = np.array([7, 3, 50])
    part = take(index, rows)
    assert len(part) == 3 and part.key.tolist() == [index.key[row] for row in rows.tolist()]
    for new, row in enumerate(rows.tolist()):
        for name in ("images_of", "rounds_of"):
            column = "image_offset" if name == "images_of" else "round_tokens"
            mine, theirs = getattr(part, name)(new), getattr(index, name)(row)
            assert getattr(part, column)[mine].tolist() == getattr(index, column)[theirs].tolist()


def test_parts_join_to_the_whole(index: ShardIndex) -> None:
    joined = concatenate([take(index, np.arange(40)), take(index, np.arange(40, 40)), take(index, np.arange(40, 100))])
    whole = index.arrays()
    for name, array in joined.arrays().items():
        assert array.dtype == whole[name].dtype and np.array_equal(array, whole[name]), name
    again = columns_from(whole)
    assert again["key"].tolist() == index.key.tolist()


def test_a_sample_costs_few_bytes(index: ShardIndex) -> None:
    """100 samples with 150 images and keys of six letters; as Python objects they took ten times as much."""
    assert index.num_bytes / len(index) < 160
