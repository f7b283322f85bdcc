"""Rows: where cached tokens lie, what a column sees, and what a selection keeps."""

from __future__ import annotations

import numpy as np
import torch
from transformers import DynamicCache

from internvl_lab.inference.rows import ENDED, Rows

LENGTHS = [2, 3]


def packed_cache() -> DynamicCache:
    """Cache two prompts of 2 and 3 tokens end to end; the value of a token is its place."""
    cache = DynamicCache()
    states = torch.arange(5.0).view(1, 1, 5, 1).expand(1, 2, 5, 1)
    cache.update(states, states, 0)
    return cache


def feed(rows: Rows, values: list[list[float]]) -> None:
    """Cache one token a column."""
    states = torch.tensor(values)[:, None, :, None].expand(-1, 2, -1, -1)
    rows.cache.update(states, states, 0)
    rows.advance()


def keys(rows: Rows) -> list[list[float]]:
    return rows.cache.layers[0].keys[:, 1, :, 0].tolist()  # type: ignore[index, union-attr, no-any-return]


def make() -> Rows:
    return Rows(packed_cache(), LENGTHS, [0, 1, 1], np.array([[0, 1], [2, 3], [4, ENDED]]))


def test_prompts_are_padded_on_the_left_and_shared_by_their_rows() -> None:
    rows = make()
    assert [row[-2:] for row in keys(rows)] == [[0, 1], [3, 4], [3, 4]] and keys(rows)[1] == [2, 3, 4]
    assert rows.valid.tolist() == [[False, True, True], [True] * 3, [True] * 3]
    assert rows.positions.tolist() == [[2], [3], [3]]


def test_a_column_sees_its_prompt_and_itself() -> None:
    rows = make()
    assert rows.mask()[0, 0].int().tolist() == [[0, 1, 1, 1, 0], [0, 1, 1, 0, 1]]
    feed(rows, [[10, 11]] * 3)
    assert rows.mask()[1, 0].int().tolist() == [[1, 1, 1, 1, 0, 1, 0], [1, 1, 1, 0, 1, 0, 1]]
    assert rows.positions.tolist() == [[3], [4], [4]]


def test_shrinking_keeps_what_is_alive() -> None:
    rows = make()
    feed(rows, [[10, 11], [12, 13], [14, 15]])
    feed(rows, [[20, 21], [22, 23], [24, 25]])
    tokens = torch.tensor([[0, 1], [2, 3], [4, 5]])
    assert rows.shrink(tokens) is tokens, "five of six columns pay for no copy"
    rows.slots = np.array([[ENDED, ENDED], [ENDED, 3], [4, ENDED]])
    assert rows.shrink(tokens).tolist() == [[3], [4]]
    assert rows.slots.tolist() == [[3], [4]]
    assert keys(rows) == [[2, 3, 4, 13, 23], [2, 3, 4, 14, 24]]
    assert rows.mask().shape == (2, 1, 1, 6) and rows.positions.tolist() == [[5], [5]]


def test_a_row_with_fewer_columns_alive_is_filled_up() -> None:
    rows = Rows(packed_cache(), LENGTHS, [0, 1], np.arange(8).reshape(2, 4))
    feed(rows, [[10, 11, 12, 13], [14, 15, 16, 17]])
    rows.slots = np.array([[ENDED, 1, ENDED, 3], [ENDED, ENDED, 6, ENDED]])
    assert rows.shrink(torch.arange(8).view(2, 4)).tolist() == [[1, 3], [6, 4]]
    assert rows.slots.tolist() == [[1, 3], [6, ENDED]]
    assert [row[3:] for row in keys(rows)] == [[11, 13], [16, 14]]


def test_one_prompt_needs_no_copy() -> None:
    cache = packed_cache()
    before = cache.layers[0].keys
    Rows(cache, [5], [0], np.array([[0]]))
    assert cache.layers[0].keys is before
