"""The smallest layout fits, the next smaller one does not, and its overrides ask for exactly it."""

from __future__ import annotations

import pytest

from internvl_lab.config import CostConfig
from internvl_lab.config.compose import compose
from internvl_lab.models.devices import GIB
from internvl_lab.scaling import plan_row
from internvl_lab.scaling.cost import pack_bound
from internvl_lab.scaling.cost_layout import (
    _layouts,
    checkpointing_choices,
    configured_layout,
    smallest_layout,
    stage_memory,
)
from internvl_lab.scaling.memory import Layout


@pytest.mark.parametrize(
    ("trainer", "layout"),
    [
        ({}, Layout(1, "single")),
        ({"devices": 1, "strategy": "auto"}, Layout(1, "single")),
        ({"devices": [0, 1], "strategy": "ddp"}, Layout(2, "ddp")),
        ({"devices": "auto", "num_nodes": 2, "strategy": "ddp"}, Layout(16, "ddp")),
        ({"devices": 4, "num_nodes": 2, "strategy": "fsdp2"}, Layout(8, "fsdp2")),
    ],
)
def test_the_layout_of_the_trainer_group(trainer, layout):
    assert configured_layout(trainer, CostConfig()) == layout


@pytest.mark.parametrize(
    ("per_node", "most", "tried"),
    [
        (8, 32, [(1, 1), (2, 1), (4, 1), (8, 1), (16, 2), (32, 4)]),
        (6, 12, [(1, 1), (2, 1), (4, 1), (6, 1), (12, 2)]),
        (1, 4, [(1, 1), (2, 2), (4, 4)]),
        (8, 1, [(1, 1)]),
    ],
)
def test_layouts_double_up_to_a_node_and_then_in_nodes(per_node, most, tried):
    found = list(_layouts(CostConfig(gpus_per_node=per_node, max_gpus=most)))
    assert list(dict.fromkeys((layout.gpus, nodes) for layout, nodes in found)) == tried
    assert [layout.strategy for layout, _ in found] == ["single", *["ddp", "fsdp2"] * (len(tried) - 1)]


def test_a_small_model_needs_one_gpu_and_no_recomputation():
    fit = plan_row(compose([])).smallest
    assert fit.layout == Layout(1, "single")
    assert set(fit.checkpointing.values()) == {()}
    assert fit.overrides(compose([])) == []
    assert fit.overrides(compose(["trainer=fsdp"])) == ["trainer.devices=1", "trainer.strategy=auto"]


@pytest.mark.parametrize("size", ["1b", "8b", "26b"])
def test_the_overrides_give_a_run_that_fits(size):
    base = [f"model=internvl2_5_{size}", "trainer=gpu"]
    config = compose(base)
    fit = plan_row(config).smallest
    again = compose([*base, *fit.overrides(config)])
    assert configured_layout(again.trainer, again.cost) == fit.layout
    cost = plan_row(again)
    assert cost.peak_memory_bytes == fit.memory.total
    assert cost.peak_memory_bytes <= 0.9 * 79 * GIB
    assert cost.smallest.layout == fit.layout


def test_half_the_layout_does_not_fit():
    config = compose(["model=internvl2_5_26b", "trainer=gpu"])
    fit = plan_row(config).smallest
    half = Layout(fit.layout.gpus // 2, "fsdp2")
    stage = config.stages["stage2"]
    least = min(
        stage_memory(config, stage, pack_bound(config), half, parts).total for parts in checkpointing_choices(config)
    )
    assert fit.memory.total <= 0.9 * 79 * GIB < least


def test_no_layout_fits_a_tiny_gpu_or_packs_that_cannot_be_shared():
    config = compose(["model=internvl2_5_78b"])
    assert smallest_layout(config, pack_bound(config), GIB) is None
    odd = compose(["model=internvl2_5_8b", "stage=stage2", "packing.packs_per_step=3"])
    assert smallest_layout(odd, pack_bound(odd), 70 * GIB) is None


def test_recomputation_is_chosen_before_more_gpus_and_the_cheaper_part_first():
    config = compose(["model=internvl2_5_8b"])
    assert checkpointing_choices(config) == [(), ("vision",), ("language",), ("vision", "language")]
    heavy_encoder = compose(["model=internvl2_5_26b", "model/language=full/qwen2_5_0_5b"])
    assert checkpointing_choices(heavy_encoder)[1] == ("language",)
    fit = plan_row(compose(["model=internvl2_5_2b", "trainer=gpu"])).smallest
    assert fit.layout.gpus == 1
    assert fit.checkpointing["stage1"] == ()
    assert fit.checkpointing["stage2"] != ()


def test_a_single_stage_is_asked_for_by_its_own_key():
    config = compose(["model=internvl2_5_2b", "stage=stage2", "trainer=gpu"])
    words = plan_row(config).smallest.overrides(config)
    assert len(words) == 1
    assert words[0].startswith("stage.gradient_checkpointing=[")
