"""Costs against sums by hand, and against what the stages say."""

from __future__ import annotations

import pytest

from internvl_lab.config import CostConfig
from internvl_lab.config.compose import compose
from internvl_lab.constants import PARTS
from internvl_lab.errors import ConfigError
from internvl_lab.models import step_flops
from internvl_lab.models.devices import DEVICES, GIB
from internvl_lab.scaling import plan_row
from internvl_lab.scaling.cost import count_trained, device_of, gpu_hours, pack_bound
from internvl_lab.scaling.memory_blocks import PackUse


def test_an_hour_of_one_gpu():
    assert gpu_hours(0.4 * 989e12 * 3600, 0.4, 989e12) == pytest.approx(1)


def test_the_bound_fills_both_budgets():
    config = compose(["model=internvl2_5_8b"])
    assert pack_bound(config) == PackUse(16_384, 16_384**2, 48, 16_384 - 48 * 256)
    few = compose(["packing.max_tokens=40"])
    assert pack_bound(few) == PackUse(40, 1600, 2, 40 - 2 * 16)


def test_a_run_costs_what_its_steps_cost():
    config = compose(["cost.mfu=0.5", "cost.price_per_gpu_hour=2"])
    cost, bound = plan_row(config), pack_bound(config)
    expected = sum(
        stage.max_steps
        * step_flops(
            config.model,
            tokens=bound.tokens,
            sum_sq=bound.sum_sq,
            tiles=bound.tiles,
            supervised_rows=bound.supervised_rows,
            trainable=stage.trainable,
        )
        for stage in config.stages.values()
    )
    assert cost.flops == pytest.approx(expected, rel=1e-12)
    assert cost.gpu_hours == pytest.approx(expected / (0.5 * 989e12 * 3600), rel=1e-12)
    assert cost.price == pytest.approx(2 * cost.gpu_hours)
    assert cost.tokens == 2048 * (150 + 150 + 1100)
    assert cost.tiles == 64 * (150 + 150 + 1100)
    assert cost.peak_memory_bytes == max(stage.memory.total for stage in cost.stages)
    assert not cost.measured


def test_measured_packs_take_the_place_of_the_bound_in_their_stage_alone():
    config = compose([])
    use = PackUse(tokens=2000, sum_sq=2e5, tiles=30, supervised_rows=500)
    bound, cost = plan_row(config), plan_row(config, {"stage2": use})
    assert [stage.measured for stage in cost.stages] == [False, False, True]
    assert cost.stages[:2] == bound.stages[:2]
    assert cost.stages[2].use == use
    assert cost.stages[2].step_flops < bound.stages[2].step_flops
    assert cost.stages[2].memory == bound.stages[2].memory  # the fullest pack decides, not the mean


def test_a_run_without_price_has_none_and_one_without_stages_costs_nothing():
    assert plan_row(compose([])).price is None
    empty = plan_row(compose(["~recipe"]))
    assert (empty.flops, empty.peak_memory_bytes, empty.smallest) == (0, 0, None)


def test_the_device_is_that_of_the_table_unless_the_configuration_says_otherwise():
    assert device_of(CostConfig(gpu="h200")) == DEVICES["h200"]
    own = device_of(CostConfig(gpu="mine", memory_gb=10, peak_tflops=50))
    assert (own.peak_bf16_flops, own.memory_bytes) == (50e12, 10 * GIB)
    assert device_of(CostConfig(memory_gb=10)).peak_bf16_flops == DEVICES["h100"].peak_bf16_flops
    with pytest.raises(ConfigError, match=r"cost\.gpu='mine' is none of b200, .*cost\.peak_tflops"):
        device_of(CostConfig(gpu="mine", memory_gb=10))


def test_what_trains_is_counted_by_stage():
    config = compose(["model=internvl2_5_1b"])
    trained = {name: count_trained(config, stage)[1] for name, stage in config.stages.items()}
    assert trained == {"stage1": 4_482_816, "stage1_5": 308_495_104, "stage2": 938_193_024}
    lora = compose(["model=internvl2_5_1b", "stage=finetune_lora"])
    parameters, adapters = count_trained(lora, lora.stages["finetune_lora"])
    assert parameters == 938_193_024 + adapters
    assert adapters == 24 * 16 * (4 * 896 + 2 * (896 + 128) + 3 * (896 + 4864))


def test_the_largest_size_is_planned_in_no_time_and_no_memory():
    """The shares of the research notes at 15 samples a pack: 0.11 of 8B's FLOPs in the encoder."""
    config = compose(["model=internvl2_5_8b", "stage=stage2"])
    use = PackUse(tokens=16_384, sum_sq=16_384**2 / 15, tiles=40, supervised_rows=16_384)
    stage = plan_row(config, {"stage2": use}).stages[0]
    pack = {part: value / stage.packs_per_step for part, value in stage.flops.items()}
    assert sum(pack.values()) == pytest.approx(826e12, rel=0.01)
    assert pack["vision"] / sum(pack.values()) == pytest.approx(0.11, abs=0.005)
    assert pack["head"] / sum(pack.values()) == pytest.approx(0.05, abs=0.005)
    assert set(config.stages["stage2"].trainable) == set(PARTS)
