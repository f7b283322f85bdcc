"""The mixture: sizes as the encoder makes them, named skips, and an order that keeps its promises."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from internvl_lab.config import PackingConfig, SourceConfig, TilingConfig
from internvl_lab.data.index import ShardIndex, build_index
from internvl_lab.data.mixture import Mixture, copy_numbers
from internvl_lab.data.records import parse_record
from internvl_lab.data.selection import sample_tiles
from internvl_lab.errors import ConfigError
from internvl_lab.text import ChatTemplate


@pytest.fixture(scope="module")
def index(shards_dir: Path, template: ChatTemplate) -> ShardIndex:
    return build_index(shards_dir, template)


def mix(kit: SimpleNamespace, **sources: tuple[SourceConfig, ShardIndex]) -> Mixture:
    return Mixture(sources, kit.tiling, kit.packing)


@pytest.mark.parametrize("max_tiles", [None, 2])
def test_sizes_are_those_of_the_encoded_samples(kit: SimpleNamespace, index: ShardIndex, max_tiles: int | None) -> None:
    source = SourceConfig(max_tiles=max_tiles)
    mixture = mix(kit, a=(source, index))
    for row in range(12):
        record = parse_record(json.loads(index.read_json(row)), str(index.key[row]), len(index.images_of(row)))
        sample = kit.encoder.encode(record, index.read_images(row), seed=0, epoch=0, source=source, source_id=0)
        assert mixture.size_of(0, row) == (len(sample.input_ids), len(sample.tiles))


def test_text_alone_has_no_tiles(kit: SimpleNamespace, tmp_path: Path, template: ChatTemplate) -> None:
    kit.write_tar(tmp_path / "a.tar", [("x.json", kit.record_bytes())])
    assert sample_tiles(build_index(tmp_path, template), SourceConfig(), kit.tiling).tolist() == [0]


def test_too_large_samples_are_counted_and_named(
    kit: SimpleNamespace, index: ShardIndex, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = np.asarray(mix(kit, a=(SourceConfig(), index)).tokens)
    limit = int(np.sort(tokens)[-6])
    with caplog.at_level(logging.WARNING):
        mixture = Mixture({"a": (SourceConfig(), index)}, kit.tiling, PackingConfig(max_tokens=limit, max_tiles=2))
    too_long = int((tokens > limit).sum())
    assert mixture.skipped["over_max_tokens"] == too_long > 0
    assert mixture.skipped["over_max_tiles"] > 0
    assert len(mixture) + mixture.skipped.total() == 100 == len(mixture) + len(mixture.skipped_samples)
    long = [skipped for skipped in mixture.skipped_samples if skipped[3] == "over_max_tokens"]
    source, shard, key, _, detail = long[0]
    assert source == "a" and f"> {limit}" in detail
    assert key in caplog.text and shard in caplog.text
    assert mixture.tokens.max() <= limit and mixture.tiles.max() <= 2


def test_problems_of_the_index_are_skips(kit: SimpleNamespace, index: ShardIndex) -> None:
    faulty = replace(index, problems=[("s.tar", "k1", "bad_json", "x")])
    assert mix(kit, a=(SourceConfig(), faulty)).skipped == {"bad_json": 1}


def test_tasks_select_without_counting_as_skips(kit: SimpleNamespace, index: ShardIndex) -> None:
    mixture = mix(kit, a=(SourceConfig(tasks=("one", "video")), index))
    assert len(mixture) == 50 and not mixture.skipped
    assert {str(index.task[row]) for row in mixture.sample} == {"one", "video"}
    with pytest.raises(ConfigError, match="a has no usable sample"):
        mix(kit, a=(SourceConfig(tasks=("nothing",)), index))
    with pytest.raises(ConfigError, match=r"\(none\)"):
        mix(kit)


def test_epoch_gives_every_sample_its_repeats(kit: SimpleNamespace, index: ShardIndex) -> None:
    mixture = mix(kit, a=(SourceConfig(repeat=2.3), index), b=(SourceConfig(), index))
    counts = Counter(mixture.epoch_samples(0, 0).tolist())
    assert {counts[i] for i in range(100, 200)} == {1}
    assert {counts[i] for i in range(100)} == {2, 3}
    assert sum(counts[i] for i in range(100)) == 230


def test_fractions_are_random_and_exact_on_average(kit: SimpleNamespace, index: ShardIndex) -> None:
    mixture = mix(kit, a=(SourceConfig(repeat=0.055), index))
    epochs = [mixture.epoch_samples(3, epoch) for epoch in range(400)]
    sizes = [len(epoch) for epoch in epochs]
    assert set(sizes) == {5, 6}
    assert np.mean(sizes) == pytest.approx(5.5, abs=0.1)
    counts = np.bincount(np.concatenate(epochs), minlength=100)
    assert counts.min() > 5 and counts.max() < 45  # 22 expected; "the first part" would give 400 and 0


@pytest.mark.parametrize("repeat", [0.001, 0.3, 0.999, 1.0, 1.5, 2.7, 4.0])
def test_any_repeat_is_exact_on_average_and_fair(kit: SimpleNamespace, index: ShardIndex, repeat: float) -> None:
    mixture = mix(kit, a=(SourceConfig(repeat=repeat), index), b=(SourceConfig(repeat=0.5), index))
    epochs = 300
    counts = np.zeros((epochs, 100), int)
    for epoch in range(epochs):
        order = mixture.epoch_samples(11, epoch)
        counts[epoch] = np.bincount(order[order < 100], minlength=100)
    assert counts.min() >= int(repeat) and counts.max() <= -int(-repeat // 1)
    drawn = counts.sum(1)
    assert drawn.min() >= int(100 * repeat) and drawn.max() <= int(100 * repeat) + (repeat % 1 > 0)
    assert drawn.mean() == pytest.approx(100 * repeat, abs=0.1)
    # a sample's further round is a coin with probability p; 5 standard deviations over all 100 of them
    p = repeat % 1
    assert np.abs(counts.mean(0) - repeat).max() <= 5 * np.sqrt(p * (1 - p) / epochs) + 1e-9
    # neither the first samples nor the first shard come more often than the last
    halves = counts[:, :50].mean(), counts[:, 50:].mean()
    assert halves[0] == pytest.approx(halves[1], abs=5 * np.sqrt(p * (1 - p) / (50 * epochs)) + 1e-9)


def test_fractions_of_two_sources_are_drawn_apart(kit: SimpleNamespace, index: ShardIndex) -> None:
    half = SourceConfig(repeat=0.5)
    order = mix(kit, a=(half, index), b=(half, index)).epoch_samples(0, 0)
    drawn = {"a": set((order[order < 100]).tolist()), "b": set((order[order >= 100] - 100).tolist())}
    assert len(drawn["a"]) == len(drawn["b"]) == 50 and drawn["a"] != drawn["b"]
    alone = mix(kit, a=(half, index)).epoch_samples(0, 0)
    assert set(alone.tolist()) == drawn["a"]  # another source beside it changes nothing


def test_order_is_a_function_of_seed_and_epoch(kit: SimpleNamespace, index: ShardIndex) -> None:
    mixture = mix(kit, a=(SourceConfig(), index))
    order = mixture.epoch_samples(1, 0)
    assert np.array_equal(order, mix(kit, a=(SourceConfig(), index)).epoch_samples(1, 0))
    assert not np.array_equal(order, mixture.epoch_samples(1, 1))
    assert not np.array_equal(order, mixture.epoch_samples(2, 0))


def test_order_keeps_shards_together_and_sources_mixed(kit: SimpleNamespace, index: ShardIndex) -> None:
    mixture = mix(kit, a=(SourceConfig(), index), b=(SourceConfig(repeat=0.5), index))
    order = mixture.epoch_samples(0, 0)
    firsts = [p for p in order if mixture.source_id[p] == 0]
    shards = index.shard[mixture.sample[firsts]]
    assert np.count_nonzero(np.diff(shards)) == 3 and sorted(set(shards.tolist())) == [0, 1, 2, 3]
    for part in np.array_split(mixture.source_id[order], 5):
        assert part.mean() == pytest.approx(1 / 3, abs=0.05)


def test_fingerprints(kit: SimpleNamespace, index: ShardIndex) -> None:
    base = mix(kit, a=(SourceConfig(shards="here"), index))
    moved = mix(kit, a=(SourceConfig(shards="there"), index))
    assert (base.fingerprint, base.settings_fingerprint) == (moved.fingerprint, moved.settings_fingerprint)
    assert mix(kit, a=(SourceConfig(repeat=2), index)).settings_fingerprint != base.settings_fingerprint
    tiling = TilingConfig(tile_size=28, num_visual_tokens=9)
    other = Mixture({"a": (SourceConfig(), index)}, tiling, kit.packing)
    assert other.settings_fingerprint != base.settings_fingerprint and other.fingerprint == base.fingerprint
    assert mix(kit, renamed=(SourceConfig(), index)).fingerprint != base.fingerprint


def test_describe_and_places(kit: SimpleNamespace, index: ShardIndex, shards_dir: Path) -> None:
    mixture = mix(kit, a=(SourceConfig(tasks=("one",)), index))
    assert mixture.describe() == {
        "a": {"samples": 25, "tokens": int(mixture.tokens.sum()), "tiles": int(mixture.tiles.sum())}
    }
    assert mixture.key_of(0, 30) == "s00030"
    assert mixture.shard_of(0, 30) == str(shards_dir / "shard-000001.tar")


def test_copies_are_numbered_in_the_order_in_which_they_come() -> None:
    assert copy_numbers(np.array([3, 1, 3, 3, 0, 1])).tolist() == [0, 0, 1, 2, 0, 1]
    assert copy_numbers(np.array([2, 0, 1])).tolist() == [0, 0, 0]
    assert copy_numbers(np.zeros(0, np.int64)).tolist() == []


def test_copies_of_a_video_show_other_frames(kit: SimpleNamespace, index: ShardIndex) -> None:
    mixture = mix(kit, a=(SourceConfig(min_frames=1, max_frames=3), index))
    videos = [row for row in range(100) if index.kind[row] == 3]
    sizes = {copy: [mixture.size_of(0, row, 1, 0, copy) for row in videos] for copy in (0, 1)}
    assert sizes[0] == [mixture.size_of(0, row, 1, 0) for row in videos] != sizes[1]
    for row, (_, tiles) in zip(videos, sizes[1], strict=True):
        assert len(mixture.read(0, row, 1, 0, 1)[1]) == tiles


def test_repeats_above_1_are_told_from_those_whose_copies_looked_the_same(
    kit: SimpleNamespace, index: ShardIndex
) -> None:
    settings = [mix(kit, a=(SourceConfig(repeat=r), index)).settings_fingerprint for r in (0.5, 1.0, 2.0)]
    assert len(set(settings)) == 3


def test_how_a_source_is_read_is_no_setting(kit: SimpleNamespace, index: ShardIndex) -> None:
    streamed = mix(kit, a=(SourceConfig(stream=True), index))
    assert streamed.settings_fingerprint == mix(kit, a=(SourceConfig(), index)).settings_fingerprint
