"""The authors' first-fit: their own steps on a hand-made stream, and what holds for any stream."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_lab.data.first_fit import MAX_OPEN_PACKS, first_fit, pack_first_fit
from internvl_lab.data.packing import lower_bound, pack_block


def members(samples: list[tuple[int, int]], max_tokens: int, max_tiles: int, max_open: int = 20) -> list[list[int]]:
    stream = ((tokens, tiles, number) for number, (tokens, tiles) in enumerate(samples))
    return [pack.members for pack in first_fit(stream, max_tokens, max_tiles, max_open)]


def test_the_pack_with_most_tiles_is_tried_first() -> None:
    # open after three samples, by tiles: [1] (4), [0] (3), [2] (3); the fourth fits into all of them
    assert members([(90, 3), (20, 4), (50, 3), (5, 1)], 100, 6) == [[1, 3], [0], [2]]


def test_full_packs_leave_at_once() -> None:
    assert members([(10, 1), (90, 1), (5, 2), (1, 4)], 100, 6) == [[0, 1], [2, 3]], "tokens exactly, then tiles exactly"
    assert members([(100, 1), (50, 1)], 100, 6)[0] == [0]


def test_the_list_overflows_at_the_most_tiles_whatever_its_tokens() -> None:
    # none fits beside another; three are one too many for two open packs
    assert members([(99, 1), (60, 3), (70, 2)], 100, 6, max_open=2) == [[1], [2], [0]]


def test_equal_tiles_keep_their_order() -> None:
    assert members([(60, 2), (70, 2), (30, 1)], 100, 6) == [[0, 2], [1]]


def test_text_takes_the_blank_tile() -> None:
    tokens, tiles = np.full(12, 1), np.zeros(12, int)
    packs = pack_first_fit(tokens, tiles, 100, 4, np.random.default_rng(0))
    assert [len(pack) for pack in packs] == [4, 4, 4]


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 9)), max_size=200),
    st.integers(50, 200),
    st.integers(9, 30),
    st.integers(0, 5),
)
def test_partition_within_limits(items: list[tuple[int, int]], max_tokens: int, max_tiles: int, seed: int) -> None:
    tokens, tiles = (np.array([item[d] for item in items], dtype=np.int64) for d in (0, 1))
    packs = pack_first_fit(tokens, tiles, max_tokens, max_tiles, np.random.default_rng(seed))
    assert sorted(i for pack in packs for i in pack) == list(range(len(items)))
    for pack in packs:
        assert tokens[pack].sum() <= max_tokens and np.maximum(tiles[pack], 1).sum() <= max_tiles


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 9)), min_size=1, max_size=200), st.integers(1, 5))
def test_never_more_open_than_allowed(items: list[tuple[int, int]], max_open: int) -> None:
    read = 0

    def stream() -> object:
        nonlocal read
        for number, (tokens, tiles) in enumerate(items):
            read += 1
            yield tokens, tiles, number

    emitted: set[int] = set()
    longest = 0
    for pack in first_fit(stream(), 60, 12, max_open):  # type: ignore[arg-type]
        emitted |= set(pack.members)
        longest = max(longest, read - len(emitted))
    assert len(emitted) == len(items)
    assert longest <= max_open * 12, "12 tiles a pack, so no more samples can wait"


def test_token_bound_streams_waste_a_fifth_and_the_pool_does_not() -> None:
    draw = np.random.default_rng(0)
    tiles = draw.integers(0, 14, 2000)
    tokens = tiles * 256 + np.clip(draw.lognormal(7, 1, 2000), 30, 8000).astype(np.int64)
    official, ours = (len(pack(tokens, tiles, 16384, 48, draw)) for pack in (pack_first_fit, pack_block))
    bound = lower_bound(tokens, tiles, 16384, 48)
    assert bound <= ours < 1.01 * bound  # measured 1.002
    assert official > 1.08 * bound
    assert MAX_OPEN_PACKS == 20


def test_oversize_is_refused_and_nothing_is_nothing() -> None:
    with pytest.raises(ValueError, match="exceeds the limits"):
        pack_first_fit(np.array([5]), np.array([7]), 10, 6, np.random.default_rng(0))
    assert pack_first_fit(np.array([], int), np.array([], int), 10, 6, np.random.default_rng(0)) == []
