"""The plan: each sample once an epoch, pure, resumable anywhere, like costs in one step."""

from __future__ import annotations

import pickle
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_lab.config import PackingConfig, SourceConfig
from internvl_lab.data.mixture import Mixture
from internvl_lab.data.packing import lower_bound
from internvl_lab.data.plan import Anchor, Cost, Pack, Plan, balanced_order
from internvl_lab.errors import ConfigError

MakePlan = Callable[..., Plan]


def stream(plan: Plan, count: int) -> list[Pack]:
    return [plan.pack(k) for k in range(count)]


def cost_of(plan: Plan, pack: Pack) -> float:
    tokens, tiles = np.array([plan.mixture.size_of(*sample) for sample in pack.samples]).T
    return float(
        plan.cost.tokens * tokens.sum() + plan.cost.tokens_squared * (tokens**2).sum() + plan.cost.tiles * tiles.sum()
    )


def test_every_sample_once_an_epoch_within_the_limits(make_plan: MakePlan) -> None:
    plan = make_plan()
    packs = stream(plan, 64)
    epochs = {epoch: Counter(s for p in packs if p.epoch == epoch for s in p.samples) for epoch in (0, 1)}
    for epoch in (0, 1):
        assert len(epochs[epoch]) == 100 and set(epochs[epoch].values()) == {1}
    for pack in packs:
        sizes = np.array([plan.mixture.size_of(*sample) for sample in pack.samples])
        assert sizes[:, 0].sum() <= 400 and sizes[:, 1].sum() <= 24


def test_pure_whatever_is_asked_first(make_plan: MakePlan) -> None:
    expected = stream(make_plan(), 60)
    plan = make_plan()
    for k in (57, 3, 40, 0, 59, 21):
        assert plan.pack(k) == expected[k]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(make_plan().pack, range(60))) == expected


def test_seed_epoch_and_block_change_the_order(make_plan: MakePlan) -> None:
    plan, other = make_plan(), make_plan(seed=2)
    assert stream(plan, 8) != stream(other, 8)
    per_epoch = plan.packs_in_epoch(0)
    assert [p.samples for p in stream(plan, per_epoch)] != [plan.pack(per_epoch + k).samples for k in range(per_epoch)]


def test_a_step_straddles_the_end_of_the_epoch(make_plan: MakePlan) -> None:
    plan = make_plan()
    per_epoch = plan.packs_in_epoch(0)
    packs = stream(plan, 2 * per_epoch + 8)
    assert Counter(p.epoch for p in packs)[0] == per_epoch
    straddling = per_epoch // plan.window_size * plan.window_size
    window = packs[straddling : straddling + plan.window_size]
    assert {p.epoch for p in window} == {0, 1}


def test_anchor_spares_planning_and_changes_nothing(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan()
    expected = stream(plan, 120)
    anchor = plan.anchor(112)
    assert anchor.epoch >= 2 and anchor.first_pack <= 112
    planned: list[int] = []
    original = Plan._plan_block

    def counting(self: Plan, epoch: int, block: int) -> list[np.ndarray]:
        planned.append(epoch)
        return original(self, epoch, block)

    monkeypatch.setattr(Plan, "_plan_block", counting)
    resumed = make_plan()
    resumed.seek(Anchor(*anchor))
    resumed.seek(Anchor(*anchor))
    assert [resumed.pack(k) for k in range(112, 120)] == expected[112:]
    assert 0 not in planned
    assert resumed.pack(5) == expected[5]
    assert [resumed.pack(k) for k in range(120)] == expected


def test_group_window_holds_the_same_packs_in_steps_of_like_cost(make_plan: MakePlan) -> None:
    packing = PackingConfig(max_tokens=400, max_tiles=24, block_size=200, group_window=4)
    plan = make_plan(packing=packing)
    alone = make_plan(packing=replace(packing, group_window=1))
    window, ungrouped = stream(plan, 16), stream(alone, 16)
    assert sorted(p.samples for p in window) == sorted(p.samples for p in ungrouped)

    def spread(packs: list[Pack]) -> float:
        costs = np.array([cost_of(plan, pack) for pack in packs]).reshape(-1, 4)
        return float((costs.max(1) / costs.mean(1)).mean())

    assert spread(window) < spread(ungrouped)
    ranges = sorted((min(c), max(c)) for c in np.array([cost_of(plan, p) for p in window]).reshape(-1, 4))
    assert all(low[1] <= high[0] for low, high in pairwise(ranges))


def test_steps_of_a_window_come_in_random_order(make_plan: MakePlan) -> None:
    packing = PackingConfig(max_tokens=200, max_tiles=24, block_size=100, group_window=8)
    firsts = set()
    for seed in range(6):
        plan = make_plan(seed=seed, packing=packing, packs_per_step=2)
        costs = np.array([cost_of(plan, p) for p in stream(plan, 16)]).reshape(-1, 2).mean(1)
        firsts.add(int(np.argmin(costs)))
    assert len(firsts) > 2


@given(st.lists(st.floats(1, 1000), min_size=1, max_size=64))
def test_balanced_order_is_a_permutation(costs: list[float]) -> None:
    assert sorted(balanced_order(np.array(costs))) == list(range(len(costs)))


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_contiguous_slices_cost_alike(ranks: int) -> None:
    def imbalance(costs: np.ndarray) -> float:
        sums = costs.reshape(ranks, -1).sum(1)
        return float(sums.max() / sums.mean())

    steps = np.random.default_rng(0).normal(1, 0.1, (20, 64))  # a step holds like costs
    ordered = np.mean([imbalance(costs[balanced_order(costs)]) for costs in steps])
    assert ordered < 1.002 < np.mean([imbalance(costs) for costs in steps])


def test_fingerprint_covers_settings_not_seed(make_plan: MakePlan, kit: SimpleNamespace) -> None:
    base = make_plan().fingerprint
    assert make_plan(seed=9).fingerprint == base
    for changed in (
        make_plan(packs_per_step=2),
        make_plan(cost=Cost(1, 2, 3)),
        make_plan(packing=replace(kit.packing, max_tokens=401)),
        make_plan(packing=replace(kit.packing, block_size=41)),
    ):
        assert changed.fingerprint["config"] != base["config"]
        assert changed.fingerprint["index"] == base["index"]


def test_fill_stats(make_plan: MakePlan) -> None:
    plan = make_plan(packing=PackingConfig(max_tokens=400, max_tiles=24, block_size=100))
    stats = plan.fill_stats
    packs = plan.packs_in_epoch(0)
    assert stats["packs"] == packs and stats["samples_per_pack"] == pytest.approx(100 / packs)
    assert stats["token_fill"] == pytest.approx(plan.mixture.tokens.sum() / packs / 400)
    assert stats["tile_fill"] == pytest.approx(plan.mixture.tiles.sum() / packs / 24)
    assert max(stats["token_fill"], stats["tile_fill"]) <= stats["efficiency"] <= 1


def test_pickled_plan_is_the_same_plan(make_plan: MakePlan) -> None:
    plan = make_plan()
    expected = stream(plan, 50)
    copied = pickle.loads(pickle.dumps(plan))
    assert stream(copied, 50) == expected and copied.anchor(48) == plan.anchor(48)


def test_epochs_without_samples_are_passed_over(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Mixture.epoch_samples
    monkeypatch.setattr(
        Mixture, "epoch_samples", lambda self, seed, epoch: original(self, seed, epoch)[: 0 if epoch < 2 else None]
    )
    plan = make_plan()
    assert plan.pack(0).epoch == 2 and plan.packs_in_epoch(0) == 0
    assert make_plan().fill_stats["packs"] == 1


def test_large_mixture_plans_in_time(mixture: Mixture, kit: SimpleNamespace) -> None:
    large = object.__new__(Mixture)
    large.__dict__.update(mixture.__dict__)
    draw = np.random.default_rng(0)
    large.tiles = np.where(draw.random(16384) < 0.4, 13, draw.integers(0, 13, 16384))
    large.tokens = large.tiles * 256 + draw.integers(30, 1000, 16384)
    large.max_frames = None
    large.source_id, large.sample = np.zeros(16384, np.int32), np.arange(16384)
    large.epoch_samples = lambda seed, epoch: np.random.default_rng([seed, epoch]).permutation(16384)  # type: ignore[method-assign]
    plan = Plan(large, PackingConfig(packs_per_step=8), 0, kit.cost, 8)
    start = time.process_time()
    plan.pack(0)
    assert time.process_time() - start < 2.0  # one block of 8192: measured 0.2 s


def test_official_policy_is_as_pure_as_the_own(make_plan: MakePlan, kit: SimpleNamespace) -> None:
    packing = replace(kit.packing, policy="official", group_window=1)
    plan = make_plan(packing=packing)
    expected = stream(plan, 60)
    assert expected != stream(make_plan(packing=replace(kit.packing, group_window=1)), 60)
    assert Counter(s for p in expected if p.epoch == 0 for s in p.samples).most_common(1)[0][1] == 1
    resumed = make_plan(packing=packing)
    resumed.seek(Anchor(*plan.anchor(52)))
    assert [resumed.pack(k) for k in range(52, 60)] == expected[52:]
    for pack in expected:
        sizes = np.array([plan.mixture.size_of(*sample) for sample in pack.samples])
        assert sizes[:, 0].sum() <= 400 and np.maximum(sizes[:, 1], 1).sum() <= 24


def test_single_policy_gives_each_sample_a_pack(make_plan: MakePlan, kit: SimpleNamespace) -> None:
    plan = make_plan(packing=replace(kit.packing, policy="single"))
    packs = stream(plan, 100)
    assert all(len(pack.samples) == 1 for pack in packs)
    assert plan.packs_in_epoch(0) == 100
    assert packs == stream(make_plan(packing=replace(kit.packing, policy="single")), 100)
    assert Counter(pack.epoch for pack in packs)[0] == len({pack.samples for pack in packs if pack.epoch == 0})


def test_cost_limit_bounds_the_packs_of_a_block(make_plan: MakePlan, kit: SimpleNamespace) -> None:
    packing = PackingConfig(max_tokens=400, max_tiles=24, block_size=100, group_window=1)
    free, limited = (make_plan(packing=replace(packing, max_cost_ratio=r)) for r in (None, 1.05))
    mean = sum(cost_of(free, free.pack(k)) for k in range(free.packs_in_epoch(0))) / lower_bound(
        free.mixture.tokens, free.mixture.tiles, 400, 24
    )

    def dearest(plan: Plan) -> float:
        packs = [plan.pack(k) for k in range(plan.packs_in_epoch(0))]
        return max(cost_of(plan, pack) for pack in packs if len(pack.samples) > 1)

    assert dearest(limited) <= 1.05 * mean < dearest(free)


def test_blocks_of_an_epoch_hold_each_sample_once(make_plan: MakePlan) -> None:
    blocks = list(make_plan().blocks(0))
    assert len(blocks) == 3
    assert sorted(np.concatenate([pack for block in blocks for pack in block])) == list(range(100))
    packs = list(make_plan().epoch_packs(0))
    assert [len(pack.samples) for pack in packs] == [len(pack) for block in blocks for pack in block]
    assert {pack.epoch for pack in packs} == {0} and not any(pack.copies for pack in packs)
    assert packs[0].numbered == [(*sample, 0) for sample in packs[0].samples]


def test_copies_of_a_sample_are_numbered(mixture: Mixture, kit: SimpleNamespace) -> None:
    often = Mixture({"all": (SourceConfig(repeat=2.5), mixture.indexes[0])}, kit.tiling, kit.packing)
    for packs_per_step in (1, 4):
        plan = Plan(often, kit.packing, 1, kit.cost, packs_per_step)
        packs = stream(plan, plan.packs_in_epoch(0) + 40)
        counts = Counter(sample for pack in packs if pack.epoch == 0 for sample in pack.numbered)
        assert set(counts.values()) == {1} and len(counts) == 250
        assert Counter(copy for _, _, copy in counts) == {0: 100, 1: 100, 2: 50}
        for pack in packs:
            sizes = np.array([often.size_of(i, row, plan.seed, pack.epoch, copy) for i, row, copy in pack.numbered])
            assert sizes[:, 0].sum() <= 400 and sizes[:, 1].sum() <= 24


def test_refusal(make_plan: MakePlan) -> None:
    with pytest.raises(ConfigError, match="packs_per_step=0"):
        make_plan(packs_per_step=0)
