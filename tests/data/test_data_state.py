"""What a saved state says has changed."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from internvl_lab.config import DataConfig, RunConfig, SourceConfig, StageConfig
from internvl_lab.data.data_state import describe_changes, encoding_settings, hash_parts
from internvl_lab.text import ChatTemplate

STAGE = StageConfig(name="stage1", mixture="pretrain")


def run(**source: object) -> RunConfig:
    sources = {"all": SourceConfig(shards="/x", **source)}  # type: ignore[arg-type]
    return RunConfig(data=DataConfig(mixtures={"pretrain": sources}))


def test_parts_name_what_changed(kit: SimpleNamespace, template: ChatTemplate) -> None:
    before = hash_parts(run(), STAGE, template, kit.cost, ["a", "b"])
    now = hash_parts(run(weight=2.0), STAGE, template, kit.cost, ["a", "c"])
    state = {"index": "1", "config": "1", "seed": 1, "parts": before}
    assert describe_changes(state, {"index": "1", "config": "1", "seed": 1}, now, ["one", "two"]) == ""
    assert describe_changes(state, {"index": "2", "config": "2", "seed": 1}, now, ["one", "two"]) == (
        "the content of the shards of two (index) and data.mixtures.pretrain (config)"
    )
    assert describe_changes({**state, "parts": {}}, {"index": "1", "config": "2", "seed": 2}, now, ["one", "two"]) == (
        "the settings of data, tiling, packing or template (config) and the seed"
    )


def test_place_and_way_of_reading_are_no_settings(kit: SimpleNamespace, template: ChatTemplate) -> None:
    moved = replace(run(), data=DataConfig(mixtures={"pretrain": {"all": SourceConfig(shards="/y", stream=True)}}))
    assert hash_parts(run(), STAGE, template, kit.cost, []) == hash_parts(moved, STAGE, template, kit.cost, [])


def test_the_encoder_s_settings(template: ChatTemplate) -> None:
    base = encoding_settings(run(), STAGE, template)
    regions = replace(run(), data=replace(run().data, region_targets=True))
    assert encoding_settings(regions, STAGE, template) == [*base, "regions"]
    assert encoding_settings(run(), replace(STAGE, name="stage2"), template) != base
