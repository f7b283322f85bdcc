"""What `inspect` counts equals what training reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from internvl_lab.config import SourceConfig
from internvl_lab.constants import IGNORE_INDEX
from internvl_lab.data.index import build_index
from internvl_lab.data.inspection import Inspection, inspect_stage, measure_fill
from internvl_lab.data.loader import PackDataset
from internvl_lab.data.mixture import Mixture
from internvl_lab.data.plan import Plan
from internvl_lab.text import ChatTemplate


@pytest.fixture
def dataset_of(kit: SimpleNamespace, shards_dir: Path, template: ChatTemplate) -> Callable[..., PackDataset]:
    index = build_index(shards_dir, template)

    def make(**sources: SourceConfig) -> PackDataset:
        mixture = Mixture({name: (config, index) for name, config in sources.items()}, kit.tiling, kit.packing)
        return PackDataset(Plan(mixture, kit.packing, 1, kit.cost, 4), kit.encoder, seed=1)

    return make


def test_shares_are_those_after_repeat(dataset_of: Callable[..., PackDataset]) -> None:
    dataset = dataset_of(
        a=SourceConfig(repeat=3.0), b=SourceConfig(repeat=0.5, tasks=("one",), max_tiles=2, weight=2.0)
    )
    inspection = inspect_stage(dataset, "stage1", "pretrain", 40, 0)
    a, b = inspection.sources["a"], inspection.sources["b"]
    assert (a.found, a.used, a.unselected, a.repeat, a.max_tiles) == (100, 100, 0, 3.0, 6)
    assert (b.found, b.used, b.unselected, b.weight, b.max_tiles) == (100, 25, 75, 2.0, 2)
    assert (a.share.samples, b.share.samples) == (300, 12.5)
    assert a.share.sample_share == pytest.approx(300 / 312.5)
    mixture = dataset.plan.mixture
    of_b = mixture.source_id == 1
    assert b.share.tokens == pytest.approx(0.5 * mixture.tokens[of_b].sum())
    assert b.share.tiles == pytest.approx(0.5 * mixture.tiles[of_b].sum())
    for name in ("sample_share", "token_share", "tile_share"):
        assert sum(getattr(source.share, name) for source in inspection.sources.values()) == pytest.approx(1)
        assert sum(getattr(share, name) for share in inspection.kinds.values()) == pytest.approx(1)
    assert inspection.kinds["text"].tiles == 0 and inspection.kinds["video"].samples == 75
    assert inspection.totals()["samples"] == 312.5
    drawn = [dataset.plan.mixture.epoch_samples(0, epoch) for epoch in range(40)]
    mean = np.mean([mixture.tokens[positions].sum() for positions in drawn])
    assert inspection.totals()["tokens"] == pytest.approx(mean, rel=0.01)


def test_fill_is_that_of_the_loaded_packs(dataset_of: Callable[..., PackDataset]) -> None:
    dataset = dataset_of(a=SourceConfig())
    fill = measure_fill(dataset.plan, 8)
    batches = [dataset[number] for number in range(8)]
    assert fill.tokens.tolist() == [batch.num_tokens for batch in batches]
    assert fill.tiles.tolist() == [batch.num_tiles for batch in batches]
    assert fill.samples.tolist() == [len(batch.sample_keys) for batch in batches]
    summary = fill.summary
    assert summary["packs"] == 8 and summary["token_fill"] == pytest.approx(fill.tokens.mean() / 400)
    bound = max(-(-fill.tokens.sum() // 400), -(-fill.tiles.sum() // 24))
    assert summary["efficiency"] == pytest.approx(bound / 8) and 0.5 < summary["efficiency"] <= 1


def test_skips_are_counted_by_source_and_reason(kit: SimpleNamespace, shards_dir: Path, template: ChatTemplate) -> None:
    index = replace(build_index(shards_dir, template), problems=[("s.tar", "k", "bad_json", "x")])
    tight = replace(kit.packing, max_tiles=3)
    mixture = Mixture({"a": (SourceConfig(), index), "b": (SourceConfig(max_tiles=1), index)}, kit.tiling, tight)
    dataset = PackDataset(Plan(mixture, tight, 1, kit.cost, 4), kit.encoder, seed=1)
    sources = inspect_stage(dataset, "s", "m", 4, 0).sources
    assert sources["a"].skipped["bad_json"] == 1 and sources["a"].skipped["over_max_tiles"] > 0
    assert sources["b"].skipped == {"bad_json": 1}
    for source in sources.values():
        assert source.used + sum(source.skipped.values()) == source.found == 101


def test_shown_samples_are_different_and_as_the_loader_makes_them(dataset_of: Callable[..., PackDataset]) -> None:
    dataset = dataset_of(a=SourceConfig(), b=SourceConfig(max_tiles=1))
    inspection = inspect_stage(dataset, "s", "m", 24, 8)
    assert len(inspection.shown) == 8 and inspection.failed == []
    assert {(shown.source, shown.kind) for shown in inspection.shown} == {
        (source, kind) for source in "ab" for kind in ("text", "one image", "several images", "video")
    }
    loaded = {}
    for number in range(24):
        batch = dataset[number]
        tiles = batch.pixel_values.split(batch.tiles_per_sample.tolist())
        places = zip(batch.source_ids.tolist(), batch.sample_keys, strict=True)
        for place, pixels in zip(places, tiles, strict=True):
            loaded.setdefault((place, dataset.plan.pack(number).epoch), pixels)
    for shown in inspection.shown:
        assert sum(shown.tiles_per_image) == shown.batch.num_tiles
        assert int((shown.batch.labels != IGNORE_INDEX).sum()) > 0
        place = ("ab".index(shown.source), shown.batch.sample_keys[0])
        assert any(
            (pixels.shape == shown.batch.pixel_values.shape) and bool((pixels == shown.batch.pixel_values).all())
            for (other, _), pixels in loaded.items()
            if other == place
        )


def test_samples_that_fail_are_named_not_shown(kit: SimpleNamespace, template: ChatTemplate, tmp_path: Path) -> None:
    members = []
    for i in range(6):
        data = kit.picture(40, 40, i, "JPEG")
        members += [(f"f{i}.0.jpg", data[: len(data) // 2] if i % 2 else data)]
        members += [(f"f{i}.json", kit.record_bytes(image="x.jpg"))]
    kit.write_tar(tmp_path / "s.tar", members)
    mixture = Mixture({"a": (SourceConfig(), build_index(tmp_path, template))}, kit.tiling, kit.packing)
    dataset = PackDataset(Plan(mixture, kit.packing, 1, kit.cost, 1), kit.encoder, seed=1)
    inspection = inspect_stage(dataset, "s", "m", dataset.plan.packs_in_epoch(0), 6)
    assert {shown.batch.sample_keys[0] for shown in inspection.shown} >= {"f0", "f2", "f4"}
    assert {(key, reason) for key, reason, _ in inspection.failed} >= {(f"f{i}", "corrupt_image") for i in (1, 3, 5)}


def test_numbers_are_json(dataset_of: Callable[..., PackDataset]) -> None:
    inspection: Inspection = inspect_stage(dataset_of(a=SourceConfig(repeat=0.3)), "s", "m", 4, 2)
    data = json.loads(json.dumps(inspection.to_json()))
    assert data["sources"]["a"]["share"]["samples"] == pytest.approx(30)
    assert data["tokens"]["max"] == int(inspection.tokens.max())
    assert data["tokens"]["p50"] == np.median(inspection.tokens) or data["tokens"]["p50"] in inspection.tokens
    assert data["tiles"]["mean"] == pytest.approx(float(inspection.tiles.mean()))
    assert len(data["shown"]) == 2
    assert len(inspection.aspect_ratios) == 25 * (1 + 2 + 3) == len(inspection.aspect_repeat)
