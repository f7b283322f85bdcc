"""The packing bench: its packs are training's, every number can be recomputed from them, and bad files are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from internvl_lab.bench.packing import (
    NUM_RANKS,
    PackingSetting,
    SizesOnly,
    bench_packing,
    official_balance,
    packing_table,
    planned_balance,
    read_pairs,
)
from internvl_lab.data.packing import pack_block
from internvl_lab.data.plan import Cost
from internvl_lab.errors import ConfigError

SETTING = PackingSetting(max_tokens=4096, max_tiles=14, block_size=250, repeats=1)


def sizes(n: int = 500, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    tiles = draw.integers(0, 14, n)
    return np.stack([tiles * 256 + draw.integers(30, 500, n), tiles], axis=1)


@pytest.fixture(scope="module")
def report() -> dict:
    pairs = sizes()
    pairs[[7, 400]] = (5000, 3), (100, 15)
    return bench_packing(pairs, SETTING)


def test_packs_hold_each_sample_once_and_oversize_is_named(report: dict) -> None:
    pairs = sizes()
    assert report["oversize"] == [7, 400]
    assert sorted(number for pack in report["packs"] for number in pack) == sorted(set(range(500)) - {7, 400})
    for pack in report["packs"]:
        assert pairs[pack, 0].sum() <= 4096 and pairs[pack, 1].sum() <= 14


def test_figures_follow_from_the_packs(report: dict) -> None:
    fitting = np.delete(sizes(), [7, 400], axis=0)
    count = len(report["packs"])
    assert report["num_packs"] == count
    volume = int(max(-(-fitting[:, 0].sum() // 4096), -(-fitting[:, 1].sum() // 14)))
    assert report["lower_bounds"]["volume"] == volume <= report["lower_bounds"]["martello_toth"]
    assert report["efficiency"] == report["lower_bounds"]["martello_toth"] / count <= 1
    assert report["token_fill"] == pytest.approx(fitting[:, 0].sum() / count / 4096)
    assert report["us_per_sample"] > 0
    assert set(report["peers"]) == {"official", "energon_knapsack", "flush_ffd"}
    assert count <= report["peers"]["official"]["num_packs"]


def test_packs_are_those_of_training(report: dict) -> None:
    """The plan's own blocks: 498 samples in two blocks, each packed with the plan's generator."""
    fitting = np.delete(sizes(), [7, 400], axis=0)
    numbers = np.delete(np.arange(500), [7, 400])
    packs = []
    for block in range(2):
        rows = np.arange(249 * block, 249 * block + 249)
        rng = np.random.default_rng([0, 0, block, 1])
        packs += [numbers[rows[pack]].tolist() for pack in pack_block(*fitting[rows].T, 4096, 14, rng)]
    assert report["packs"] == packs


def test_balance_is_measured_over_64_ranks() -> None:
    pairs, cost = sizes(4000), Cost(1.0, 0.001, 300.0)
    setting = PackingSetting(max_tokens=4096, max_tiles=14, block_size=4000)
    ours, official = planned_balance(setting, pairs, cost), official_balance(setting, pairs, cost)
    assert ours is not None and official is not None
    assert 1 <= ours < official
    assert planned_balance(setting, pairs[:64], cost) is None
    same = np.full((NUM_RANKS * 16, 2), (4000, 14))
    assert planned_balance(setting, same, cost) == official_balance(setting, same, cost) == 1


def test_an_epoch_runs_through_the_pairs_in_order() -> None:
    table = SizesOnly(sizes(5))
    assert table.epoch_samples(3, 7).tolist() == [0, 1, 2, 3, 4] and len(table) == 5


def test_table_names_all_policies(report: dict) -> None:
    table = packing_table(report)
    assert list(table.columns[0].cells) == ["ours", "official", "energon_knapsack", "flush_ffd"]
    assert "2 oversize" in str(table.caption)


@pytest.mark.parametrize("content", [[[3, 1], [5, 0]], {"seed": 1, "pairs": [[3, 1], [5, 0]]}])
def test_pairs_come_alone_or_under_their_key(tmp_path: Path, content: object) -> None:
    file = tmp_path / "pairs.json"
    file.write_text(json.dumps(content))
    assert read_pairs(file).tolist() == [[3, 1], [5, 0]]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[[1, 2, 3]]", "[[1.5, 2]]", "[[1], [2, 3]]", "[[0, 1]]", "[[1, -1]]"]
)
def test_other_files_are_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pairs.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"pairs\.json"):
        read_pairs(file)
    with pytest.raises(ConfigError, match=r"absent\.json"):
        read_pairs(tmp_path / "absent.json")


def test_nothing_within_the_limits_is_refused() -> None:
    with pytest.raises(ConfigError, match="no sample is within 10 tokens"):
        bench_packing(sizes(), PackingSetting(10, 2))
