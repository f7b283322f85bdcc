"""Every rank gets the same number of packs, and all ranks together every pack once, whatever the shards look like."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from internvl_lab.config import DataConfig, PackingConfig, RunConfig, SourceConfig, StageConfig
from internvl_lab.data.index import build_index
from internvl_lab.data.loader import EMPTY_KEY, PackDataset, PackLoader
from internvl_lab.data.mixture import Mixture
from internvl_lab.data.plan import Plan
from internvl_lab.data.shards import write_shards
from internvl_lab.text import ChatTemplate

sys.path.insert(0, str(Path(__file__).parent))
import stream_driver as driver

RANKS = 64
LAYOUTS = {"one shard": [30], "fewer shards than ranks": [10, 10, 10], "uneven shards": [27, 1, 2], "few samples": [3]}
"""Samples of each shard."""


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS)
def folder(request: pytest.FixtureRequest, tmp_path: Path, kit: SimpleNamespace) -> Path:
    first = 0
    for shard, size in enumerate(request.param):
        write_shards((kit.sample(i) for i in range(first, first + size)), tmp_path / f"part{shard}", size)
        (tmp_path / f"part{shard}" / "shard-000000.tar").rename(tmp_path / f"s-{shard:06d}.tar")
        first += size
    return tmp_path


def plan_of(folder: Path, kit: SimpleNamespace, template: ChatTemplate, packs_per_step: int) -> Plan:
    mixture = Mixture({"all": (SourceConfig(), build_index(folder, template))}, kit.tiling, kit.packing)
    return Plan(mixture, kit.packing, 1, kit.cost, packs_per_step)


@pytest.mark.parametrize("packs_per_step", [64, 128])
def test_64_ranks_share_every_pack_equally(
    folder: Path, kit: SimpleNamespace, template: ChatTemplate, packs_per_step: int
) -> None:
    dataset = PackDataset(plan_of(folder, kit, template, packs_per_step), kit.encoder, 0)
    steps = 5
    numbers = []
    for rank in range(RANKS):
        loader = PackLoader(dataset, num_steps=steps, packs_per_step=packs_per_step, rank=rank, world_size=RANKS)
        numbers.append(loader.pack_numbers())
        assert len(numbers[-1]) == len(loader) == steps * packs_per_step // RANKS
    assert sorted(number for rank in numbers for number in rank) == list(range(steps * packs_per_step))
    per_rank = packs_per_step // RANKS
    for step in range(steps):  # in each step every rank has its part, none is ahead
        of_step = {n for rank in numbers for n in rank[step * per_rank : (step + 1) * per_rank]}
        assert of_step == set(range(step * packs_per_step, (step + 1) * packs_per_step))


def test_64_ranks_read_every_sample_of_an_epoch_once(
    folder: Path, kit: SimpleNamespace, template: ChatTemplate
) -> None:
    plan = plan_of(folder, kit, template, RANKS)
    steps = 6
    packs = [plan.pack(number) for number in range(steps * RANKS)]
    seen = [Counter(s for pack in packs if pack.epoch == epoch for s in pack.samples) for epoch in range(3)]
    for counts in seen:
        assert set(counts.values()) == {1} and len(counts) == len(plan.mixture)
    assert all(pack.samples for pack in packs)


def test_a_wholly_bad_pack_keeps_its_place_with_no_weight(
    tmp_path: Path, kit: SimpleNamespace, template: ChatTemplate
) -> None:
    members = []
    for i in range(24):
        data = kit.picture(40, 40, i, "JPEG")
        members += [(f"i{i}.0.jpg", data[: len(data) // 2] if i < 16 else data)]
        members += [(f"i{i}.json", kit.record_bytes(image="x.jpg"))]
    kit.write_tar(tmp_path / "s.tar", members)
    mixture = Mixture({"a": (SourceConfig(), build_index(tmp_path, template))}, kit.tiling, kit.packing)
    packing = PackingConfig(max_tokens=60, max_tiles=24, block_size=24, group_window=1)
    dataset = PackDataset(Plan(mixture, packing, 0, kit.cost, 2), kit.encoder, 0)
    steps = dataset.plan.packs_in_epoch(0) // 2
    ranks = [list(PackLoader(dataset, num_steps=steps, packs_per_step=2, rank=rank, world_size=2)) for rank in (0, 1)]
    assert len(ranks[0]) == len(ranks[1]) == steps
    empty = [batch for rank in ranks for batch in rank if batch.sample_keys == [EMPTY_KEY]]
    assert empty and all(float(batch.loss_weights.sum()) == 0 for batch in empty)
    assert sorted(batch.pack_number for rank in ranks for batch in rank) == list(range(2 * steps))
    sound = sorted(key for rank in ranks for batch in rank for key in batch.sample_keys if key != EMPTY_KEY)
    bad = sorted(entry[0] for rank in ranks for batch in rank for entry in batch.bad_samples)
    planned = [key for number in range(2 * steps) for key, _ in dataset.planned(number)]
    assert sorted(sound + bad) == sorted(planned)
    assert set(bad) == {key for key in planned if int(key[1:]) < 16}


@pytest.mark.slow
def test_two_gloo_ranks_go_in_step(folder: Path, kit: SimpleNamespace, template: ChatTemplate, run_dir: Path) -> None:
    """A rank with fewer packs would leave the other waiting at the barrier of a step for ever."""
    data = DataConfig(mixtures={"pretrain": {"all": SourceConfig(shards=str(folder))}})
    cfg = RunConfig(seed=1, data=data, tiling=kit.tiling, packing=replace(kit.packing, packs_per_step=2))
    stage = StageConfig(name="stage1", mixture="pretrain", max_steps=12)
    job = driver.Job(cfg, stage, template, kit.cost, run_dir)
    expected = [driver.describe(batch) for batch in job.module().train_dataloader()]
    driver.finish(driver.launch(job, 0, 2, 1))
    assert [len(driver.read_lines(job, 0, rank)) for rank in (0, 1)] == [12, 12]
    assert list(driver.committed(job, [0, job.next_pack()], [2])) == expected
