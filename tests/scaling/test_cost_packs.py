"""Packs are measured where an index is, as the plan packs them, and bounded where none is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from internvl_lab.config import MiniworldConfig, SourceConfig
from internvl_lab.config.compose import compose
from internvl_lab.data import load_or_build_index
from internvl_lab.data.miniworld import ensure_shards
from internvl_lab.prepare import build_template
from internvl_lab.scaling.cost_packs import measure_packs


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Generate a few samples of miniworld."""
    settings = MiniworldConfig(num_pretrain=40, num_finetune=0, num_val=0, samples_per_shard=40)
    return ensure_shards(settings, tmp_path_factory.mktemp("world"), num_processes=1)["pretrain"]


def test_the_mean_pack_is_that_of_the_plan(shards):
    config = compose(["packing.max_tokens=512", "packing.max_tiles=16"])
    template, stage = build_template(config), config.stages["stage1"]
    sources = {"pretrain": SourceConfig(shards=str(shards))}
    assert measure_packs(config, stage, sources, template) is None  # nothing is indexed for a plan
    assert not list(shards.glob(".index*"))

    index = load_or_build_index(shards, template)
    use = measure_packs(config, stage, sources, template)
    assert len(index) == 40
    assert 256 < use.tokens <= 512
    assert 0 < use.tiles <= 16
    assert use.tokens**2 / 40 < use.sum_sq < use.tokens**2
    assert use.supervised_rows == pytest.approx(use.tokens - 16 * use.tiles)
    # every sample is in one pack, so mean times number gives the whole
    packs = index.text_tokens.sum() / (use.tokens - 16 * use.tiles)
    assert packs == pytest.approx(np.round(packs))


def test_what_cannot_be_used_is_not_measured(shards):
    config = compose([])
    template, stage = build_template(config), config.stages["stage1"]
    load_or_build_index(shards, template)
    assert measure_packs(config, stage, {"x": SourceConfig(shards="https://host/{0..3}.tar")}, template) is None
    assert measure_packs(config, stage, {"x": SourceConfig(shards=str(shards), tasks=("none",))}, template) is None
    assert measure_packs(config, replace(stage, name="other"), {"x": SourceConfig(shards=str(shards))}, template)
