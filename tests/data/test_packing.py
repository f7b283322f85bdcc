"""Packing: a partition within the limits, near the lower bound, on streams that favour either heuristic."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_lab.data.packing import (
    GREEDY_POOL_SIZE,
    POOL_SIZE,
    Budget,
    fill_exact,
    fill_greedy,
    lower_bound,
    pack_block,
    pack_pool,
    strong_lower_bound,
)

SAMPLES = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 9)), max_size=300)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def stream(n: int, lumpy: bool = False, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A stream like InternVL's: 1 to 13 tiles of 256 tokens, log-normal texts, a tenth without images."""
    draw = rng(seed)
    tiles = np.where(draw.random(n) < 0.45, 13, draw.integers(1, 4 if lumpy else 13, n))
    tiles[draw.random(n) < 0.1] = 0
    return tiles * 256 + np.clip(draw.lognormal(5.4, 0.9, n), 30, 2000).astype(np.int64), tiles


@given(
    SAMPLES,
    st.integers(50, 200),
    st.integers(9, 30),
    st.integers(0, 5),
)
def test_partition_within_limits(items: list[tuple[int, int]], max_tokens: int, max_tiles: int, seed: int) -> None:
    tokens, tiles = (np.array([item[d] for item in items], dtype=np.int64) for d in (0, 1))
    packs = pack_block(tokens, tiles, max_tokens, max_tiles, rng(seed))
    assert sorted(i for pack in packs for i in pack) == list(range(len(items)))
    for pack in packs:
        assert tokens[pack].sum() <= max_tokens and tiles[pack].sum() <= max_tiles


@pytest.mark.parametrize("fill", [fill_greedy, fill_exact])
def test_oldest_sample_starts_each_pack(fill: object) -> None:
    tokens, tiles = stream(400)
    items = list(zip(tokens.tolist(), tiles.tolist(), range(400), strict=True))
    packs = pack_pool(items, Budget(16384, 48, 15000.0, 48.0), fill)  # type: ignore[arg-type]
    remaining = list(range(400))
    for pack in packs:
        assert pack[0] == remaining[0]
        assert max(remaining.index(i) for i in pack) < POOL_SIZE
        remaining = [i for i in remaining if i not in pack]


def test_exact_finds_the_perfect_fill() -> None:
    pool = [(10, 1, 0), (50, 1, 1), (33, 2, 2), (57, 2, 3), (40, 5, 4)]
    chosen = fill_exact(pool, Budget(100, 5, 100.0, 4.0))
    assert sum(pool[i][0] for i in [0, *chosen]) == 100
    assert chosen == [3, 2]


@pytest.mark.parametrize("lumpy", [False, True])
def test_efficiency_of_one_block(lumpy: bool) -> None:
    tokens, tiles = stream(2000, lumpy)
    packs = pack_block(tokens, tiles, 16384, 48, rng())
    three_of_13 = -(-np.count_nonzero(tiles == 13) // 3)  # no pack holds four of them
    bound = max(lower_bound(tokens, tiles, 16384, 48), int(three_of_13))
    assert len(packs) <= bound + 2  # measured: exactly the bound, 349 and 266


def test_block_keeps_the_shorter_of_both() -> None:
    tokens, tiles = stream(1000, lumpy=True)
    order = rng(5).permutation(1000)
    items = list(zip(tokens[order].tolist(), tiles[order].tolist(), order.tolist(), strict=True))
    bound = lower_bound(tokens, tiles, 16384, 48)
    budget = Budget(16384, 48, tokens.sum() / bound, tiles.sum() / bound)
    lengths = [len(pack_pool(items, budget, fill_exact)), len(pack_pool(items, budget, fill_greedy, GREEDY_POOL_SIZE))]
    assert len(pack_block(tokens, tiles, 16384, 48, rng(5))) == min(lengths)


def test_small_samples_pack_densely_and_fast() -> None:
    draw = rng(1)
    tokens, tiles = draw.integers(45, 110, 4000), draw.integers(0, 5, 4000)
    start = time.process_time()
    packs = pack_block(tokens, tiles, 2048, 64, rng())
    per_sample = (time.process_time() - start) / 4000
    assert lower_bound(tokens, tiles, 2048, 64) / len(packs) > 0.98
    assert per_sample < 300e-6  # measured 11 us; the margin is for busy machines


def test_same_generator_same_packs() -> None:
    tokens, tiles = stream(300)
    first, again, other = (pack_block(tokens, tiles, 16384, 48, rng(s)) for s in (0, 0, 1))
    assert first == again != other


def test_oversize_sample_is_refused_and_nothing_is_nothing() -> None:
    with pytest.raises(ValueError, match="exceeds the limits"):
        pack_block(np.array([5]), np.array([7]), 10, 6, rng())
    assert pack_block(np.array([], int), np.array([], int), 10, 6, rng()) == []


@given(SAMPLES, st.floats(0.3, 2.0), st.integers(0, 5))
def test_cost_is_a_third_limit(items: list[tuple[int, int]], ratio: float, seed: int) -> None:
    tokens, tiles = (np.array([item[d] for item in items], dtype=np.int64) for d in (0, 1))
    costs = tokens.astype(float) ** 2 + 100 * tiles
    packs = pack_block(tokens, tiles, 120, 20, rng(seed), costs, ratio)
    assert sorted(i for pack in packs for i in pack) == list(range(len(items)))
    limit = ratio * costs.sum() / lower_bound(tokens, tiles, 120, 20)
    for pack in packs:
        assert tokens[pack].sum() <= 120 and tiles[pack].sum() <= 20
        assert len(pack) == 1 or costs[pack].sum() <= limit * (1 + 1e-12)


def test_a_loose_cost_limit_changes_nothing_and_a_tight_one_costs_packs() -> None:
    tokens, tiles = stream(2000)
    costs = 14e9 * tokens + 0.26e6 * tokens**2.0 + 0.74e12 * tiles
    plain = pack_block(tokens, tiles, 16384, 48, rng())
    assert pack_block(tokens, tiles, 16384, 48, rng(), costs, 100.0) == plain
    limited = pack_block(tokens, tiles, 16384, 48, rng(), costs, 1.02)

    def dearest(packs: list[list[int]]) -> float:
        return max(costs[pack].sum() for pack in packs)

    assert dearest(limited) <= 1.02 * costs.sum() / lower_bound(tokens, tiles, 16384, 48) < dearest(plain)
    assert len(plain) <= len(limited) < 1.05 * len(plain)


def test_strong_bound_knows_what_cannot_share_a_pack() -> None:
    thirteen = np.full(10, 13)
    assert lower_bound(thirteen * 256, thirteen, 8192, 24) == 6
    assert strong_lower_bound(thirteen * 256, thirteen, 8192, 24) == 10
    tiles = np.array([13, 13, 20, 11, 11, 4, 3])  # 20+4, 13+11, 13+11, 3: no three packs of 24 hold them
    assert strong_lower_bound(tiles, tiles, 24, 24) == 4
    assert strong_lower_bound(np.array([], int), np.array([], int), 24, 24) == 1


@given(st.lists(st.integers(1, 12), min_size=1, max_size=7))
def test_strong_bound_never_exceeds_the_optimum(sizes: list[int]) -> None:
    array = np.array(sizes)
    best = fewest(sorted(sizes, reverse=True), 12)
    assert lower_bound(array, array, 12, 12) <= strong_lower_bound(array, array, 12, 12) <= best


def fewest(sizes: list[int], limit: int) -> int:
    """Try all ways to put each sample into an open pack or a new one."""

    def search(rest: list[int], packs: tuple[int, ...]) -> int:
        if not rest:
            return len(packs)
        options = [search(rest[1:], (*packs, rest[0]))]
        for i in range(len(packs)):
            if packs[i] + rest[0] <= limit:
                options.append(search(rest[1:], (*packs[:i], packs[i] + rest[0], *packs[i + 1 :])))
        return min(options)

    return search(sizes, ())
