"""The peers' policies: hand-made buffers, and a partition within the limits for any stream."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_lab.bench import packers
from internvl_lab.bench.packers import PACKERS, energon_knapsack, flush_ffd, official


def pack(name: str, samples: list[tuple[int, int]], max_tokens: int, max_tiles: int) -> list[list[int]]:
    tokens, tiles = (np.array([sample[d] for sample in samples], np.int64) for d in (0, 1))
    return PACKERS[name](tokens, tiles, max_tokens, max_tiles)


@pytest.mark.parametrize("name", PACKERS)
@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 9)), max_size=120), st.integers(50, 150))
def test_partition_within_limits(name: str, samples: list[tuple[int, int]], max_tokens: int) -> None:
    packs = pack(name, samples, max_tokens, 12)
    assert sorted(i for members in packs for i in members) == list(range(len(samples)))
    for members in packs:
        assert sum(samples[i][0] for i in members) <= max_tokens and sum(samples[i][1] for i in members) <= 12


def test_knapsack_takes_the_longest_that_fits() -> None:
    assert pack("energon_knapsack", [(30, 0), (60, 0), (50, 0), (10, 0)], 100, 9) == [[1, 0, 3], [2]]
    assert pack("energon_knapsack", [(30, 5), (60, 5), (50, 1)], 100, 9) == [[1], [2, 0]], (
        "tiles keep 0 out of the first"
    )


def test_first_fit_decreasing_opens_packs_in_order() -> None:
    # shares: .3, .6, .5, .4 (by tokens), .9 (by tiles)
    assert pack("flush_ffd", [(30, 0), (60, 0), (50, 0), (40, 0), (1, 9)], 100, 10) == [[4, 1, 0], [2, 3]]


def test_a_buffer_is_packed_before_the_next_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packers, "BUFFER_SIZE", 2)
    tokens, tiles = np.array([60, 60, 40, 40]), np.zeros(4, np.int64)
    assert energon_knapsack(tokens, tiles, 100, 9) == [[1], [0], [3, 2]]
    assert flush_ffd(tokens, tiles, 100, 9) == [[0], [1], [2, 3]]
    assert official(tokens, tiles, 100, 9) == [[0, 2], [1, 3]]
