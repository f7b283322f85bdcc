"""Packs from streams: those of the indexed path, each sample once, faults counted, and as many for every rank."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from internvl_lab.config import PackingConfig, SourceConfig
from internvl_lab.data.batch import Batch
from internvl_lab.data.loader import PackDataset
from internvl_lab.data.quarantine import QuarantineLog
from internvl_lab.data.stream import Reader, StreamSource
from internvl_lab.data.stream_loader import StreamDataset, StreamedPack, StreamLoader, _Iterable
from internvl_lab.errors import ShardError


class Make:
    """Build streams over the 100 samples, with changes."""

    def __init__(self, kit: SimpleNamespace, shards_dir: Path) -> None:
        self.kit = kit
        self.tars = tuple(f"pipe:cat {path}" for path in sorted(shards_dir.glob("*.tar")))

    def __call__(
        self, *tars: str, config: SourceConfig | None = None, packing: PackingConfig | None = None, **more: Any
    ) -> StreamDataset:
        sources = [StreamSource("a", config or SourceConfig(), tars or self.tars)]
        return StreamDataset(sources, self.kit.encoder, packing or self.kit.packing, self.kit.cost, 1, **more)


@pytest.fixture
def make(kit: SimpleNamespace, shards_dir: Path) -> Make:
    return Make(kit, shards_dir)


def loader(dataset: StreamDataset, **options: Any) -> StreamLoader:
    return StreamLoader(dataset, **{"num_steps": 6, "packs_per_step": 4, **options})


def epoch_of(dataset: StreamDataset, epoch: int = 0) -> list[StreamedPack]:
    return list(dataset.read_epoch(epoch, Reader(0, 1)))


def tiles_of(batch: Batch, key: str) -> torch.Tensor:
    return batch.pixel_values.split(batch.tiles_per_sample.tolist())[batch.sample_keys.index(key)]


def shown(packs: list[StreamedPack], key: str) -> list[torch.Tensor]:
    """Return the tiles of every copy of a sample."""
    return [
        tiles
        for pack in packs
        if pack.batch is not None
        for name, tiles in zip(
            pack.batch.sample_keys, pack.batch.pixel_values.split(pack.batch.tiles_per_sample.tolist()), strict=True
        )
        if name == key
    ]


@pytest.mark.parametrize("tars", [4, 1])
def test_two_workers_on_two_ranks_see_each_sample_once(make: Make, tars: int) -> None:
    """With one tar, four readers share it."""
    seen: dict[int, Counter[str]] = {}
    for rank in (0, 1):
        dataset = make(*make.tars[:tars], rank=rank, world_size=2)
        ranked = loader(dataset, rank=rank, world_size=2, num_workers=2)
        packs = ranked._load(_Iterable(dataset))
        for pack in (next(packs) for _ in range(14)):
            assert pack.batch is not None and not pack.bad_samples
            assert pack.batch.num_tokens <= 400 and pack.batch.num_tiles <= 24
            seen.setdefault(pack.epoch, Counter()).update(pack.batch.sample_keys)
        assert max(seen) >= 1  # both workers have gone round: they take turns
    assert len(seen[0]) == 25 * tars and set(seen[0].values()) == {1}


def test_samples_are_those_of_the_indexed_path(make: Make, dataset: PackDataset) -> None:
    indexed = [dataset[0, pack] for pack in dataset.plan.epoch_packs(0)]
    for pack in epoch_of(make()):
        assert pack.batch is not None
        for key in pack.batch.sample_keys:
            if int(key[1:]) % 4 in (1, 2):  # images; of videos, frames are drawn by the window
                (other,) = (batch for batch in indexed if key in batch.sample_keys)
                assert torch.equal(tiles_of(pack.batch, key), tiles_of(other, key))


def test_every_rank_gets_the_same_number_of_packs(make: Make) -> None:
    runs = []
    for rank in (0, 1):
        ranked = loader(make(*make.tars[:3], rank=rank, world_size=2), rank=rank, world_size=2)
        runs.append(list(ranked))
        assert len(runs[-1]) == len(ranked) == 12
        assert [batch.pack_number for batch in runs[-1]] == ranked.pack_numbers()
        assert ranked.epoch >= 1  # one rank has two tars, the other one; both have gone round
    again = list(loader(make(*make.tars[:3], world_size=2), world_size=2))
    assert all(torch.equal(a.pixel_values, b.pixel_values) for a, b in zip(runs[0], again, strict=True))


def test_the_position_leaves_steps_out_and_the_first_epoch_orders_anew(make: Make) -> None:
    resumed = loader(make(first_epoch=3))
    resumed.set_position(4)
    assert resumed.epoch == 2
    batches = list(resumed)
    assert [batch.pack_number for batch in batches] == list(range(16, 24)) and resumed.epoch == 3
    first = epoch_of(make(), 3)[0].batch
    assert first is not None and batches[0].sample_keys == first.sample_keys


def test_faulty_samples_are_quarantined_and_the_rest_comes(make: Make, kit: SimpleNamespace, tmp_path: Path) -> None:
    members = []
    for i in range(24):
        data = kit.picture(40, 40, i, "JPEG")
        members += [(f"i{i}.0.jpg", data[: len(data) // 2] if i == 3 else b"" if i == 9 else data)]
        members += [(f"i{i}.json", b"{" if i == 17 else kit.record_bytes(image="x.jpg"))]
    tar = str(kit.write_tar(tmp_path / "x.tar", [*members, ("i23.json", b"{}")]))
    log = QuarantineLog(tmp_path / "q.jsonl", "stage1", 1.0, 100)
    packs = epoch_of(make(tar))
    read = loader(make(tar), num_steps=len(packs), packs_per_step=1, num_workers=2, quarantine=log)
    emitted = [key for batch in read for key in batch.sample_keys]
    assert Counter(emitted) == Counter(f"i{i}" for i in range(24) if i not in (3, 9, 17))
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert {(line["key"], line["reason"]) for line in lines} == {
        ("i3", "corrupt_image"), ("i9", "corrupt_image"), ("i17", "bad_json"), ("i23", "duplicate_key"),
    }  # fmt: skip
    assert {line["shard"] for line in lines} == {tar} and all(line["stage"] == "stage1" for line in lines)
    assert log.num_seen == 25 and log.num_bad == 4
    assert sum(len(pack.bad_samples) for pack in packs) == 4
    strict = QuarantineLog(tmp_path / "q2.jsonl", "stage1", 0.002, 100)
    with pytest.raises(ShardError, match=r"3 of \d+ samples cannot be read \(data\.max_bad_share=0\.002\)"):
        list(loader(make(tar), quarantine=strict))


def test_too_long_samples_are_named_and_no_fault(make: Make, kit: SimpleNamespace, tmp_path: Path) -> None:
    log = QuarantineLog(tmp_path / "q.jsonl", "stage1", 0.0, 1)
    tight = PackingConfig(max_tokens=60, max_tiles=24, block_size=100)
    read = loader(make(packing=tight), quarantine=log)
    assert all(batch.num_tokens <= 60 for batch in read)
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert {line["reason"] for line in lines} == {"over_max_tokens"} and log.num_bad == 0
    cut = epoch_of(make(packing=tight, long_samples="truncate_text"))
    assert sum(len(p.batch.sample_keys) for p in cut if p.batch) > sum(
        len(p.batch.sample_keys) for p in epoch_of(make(packing=tight)) if p.batch
    )
    with pytest.raises(ShardError, match="the stream of a holds no usable sample for reader 1 of 1"):
        list(loader(make(packing=PackingConfig(max_tokens=5, max_tiles=24)), quarantine=log))


def test_repeat_acts_inside_the_window_and_copies_differ(make: Make) -> None:
    packs = epoch_of(make(config=SourceConfig(repeat=2.25)))
    counts = Counter(key for pack in packs if pack.batch for key in pack.batch.sample_keys)
    assert len(counts) == 100 and set(counts.values()) == {2, 3} and sum(counts.values()) == pytest.approx(225, abs=4)
    first, second = next(copies for copies in (shown(packs, f"s{i:05d}") for i in (1, 5, 9)) if len(copies) == 2)
    assert first.shape == second.shape and not torch.equal(first, second)
    rare = make(config=SourceConfig(repeat=0.004))
    batches = [pack.batch for epoch in range(4) for pack in epoch_of(rare, epoch)]
    assert None in batches and len(batches) < 16  # epochs in which chance draws no sample are no error


def test_sources_keep_their_numbers(kit: SimpleNamespace, make: Make, tmp_path: Path) -> None:
    tar = str(kit.write_tar(tmp_path / "x.tar", [(f"t{i}.json", kit.record_bytes(task="new")) for i in range(20)]))
    none = StreamSource("none", SourceConfig(tasks=("other",)), (tar,))
    sources = [none, StreamSource("a", SourceConfig(), make.tars), StreamSource("t", SourceConfig(), (tar,))]
    mixed = StreamDataset(sources, kit.encoder, kit.packing, kit.cost, 1)
    found = Counter(
        (key[0], source)
        for pack in epoch_of(mixed)
        if pack.batch
        for key, source in zip(pack.batch.sample_keys, pack.batch.source_ids.tolist(), strict=True)
    )
    assert found == {("s", 1): 100, ("t", 2): 20}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_failing_command_is_one_clear_error(make: Make, num_workers: int) -> None:
    tars = (*make.tars[:3], "pipe:cat /gone.tar")
    with pytest.raises(ShardError) as caught:
        list(loader(make(*tars), num_steps=100, num_workers=num_workers))
    assert str(caught.value) == "pipe:cat /gone.tar ended with status 1: cat: /gone.tar: No such file or directory"


def test_more_readers_than_samples_are_refused(make: Make, kit: SimpleNamespace, tmp_path: Path) -> None:
    tar = str(kit.write_tar(tmp_path / "x.tar", [("a.json", kit.record_bytes())]))
    with pytest.raises(ShardError, match=r"no usable sample for reader 2 of 2 .*: use fewer workers"):
        list(loader(make(tar), num_workers=2))
