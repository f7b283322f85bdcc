from __future__ import annotations

from dataclasses import replace

import pytest

from internvl_lab.bench.samples import WORKLOADS, draw_samples, pack_samples
from internvl_lab.bench.setting import StepSetting, find_setting
from internvl_lab.config import LoraConfig, StageConfig
from internvl_lab.constants import PARTS
from internvl_lab.errors import ConfigError
from internvl_lab.models import build_on_meta, count_parameters

TINY = WORKLOADS["tiny"]


@pytest.mark.parametrize(("size", "total"), [("1b", 938_193_024), ("2b", 2_205_754_368), ("8b", 8_075_365_376)])
def test_published_sizes_are_those_of_the_report(size: str, total: int) -> None:
    setting = find_setting(size, "cuda")
    assert count_parameters(build_on_meta(setting.workload.model))["total"] == total
    assert (setting.workload.pack_tokens, setting.workload.pack_tiles) == (16384, 48)
    assert (setting.precision, setting.workload.model.dtype) == ("bf16", "bfloat16")
    assert setting.stage.trainable == (("projector",) if size == "8b" else PARTS)


def test_published_workload_fills_both_limits_of_a_pack() -> None:
    workload = find_setting("1b", "cuda").workload
    samples = draw_samples(workload)
    packs = pack_samples(samples, workload.pack_tokens, 0, workload.pack_tiles)
    tokens = [sum(len(s.input_ids) for s in pack) for pack in packs]
    tiles = [sum(len(s.tiles) for s in pack) for pack in packs]
    assert len(packs) == 4
    assert max(tokens) <= 16384 and max(tiles) <= 48
    assert sum(tokens) > 0.9 * 4 * 16384 and sum(tiles) > 0.9 * 4 * 48


def test_choices_of_stage_precision_and_attention() -> None:
    setting = find_setting("mini", "cpu", "finetune_lora", "bf16-mixed", "dense")
    assert setting.adapts and setting.stage.trainable == () and setting.stage.lora.dropout == 0
    assert (setting.workload.model.dtype, setting.workload.model.attention) == ("float32", "dense")
    assert setting.workload.model.vision.image_size == 112
    assert find_setting("tiny", "cpu").workload == replace(TINY, model=replace(TINY.model, attention="auto"))
    assert find_setting("tiny", "cpu").precision == "fp32"


@pytest.mark.parametrize(
    "wrong", [("9b", "cpu"), ("tiny", "tpu"), ("tiny", "cpu", "stage3"), ("tiny", "cpu", None, "fp8")]
)
def test_unknown_choices_are_refused(wrong: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="must be one of"):
        find_setting(*wrong)


@pytest.mark.parametrize(
    "stage",
    [
        StageConfig(trainable=PARTS, drop_path_rate=0.1),
        StageConfig(trainable=(), lora=LoraConfig(parts=("language",), dropout=0.1)),
    ],
)
def test_random_masks_are_refused(stage: StageConfig) -> None:
    with pytest.raises(ConfigError, match="must be 0"):
        StepSetting(TINY, stage=stage)


@pytest.mark.parametrize("wrong", [{"num_samples": 0}, {"batch_size": 0}, {"pack_tiles": 0}, {"pack_tokens": 8}])
def test_impossible_workloads_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        replace(TINY, **wrong)


def test_no_sample_breaks_the_limits_of_a_pack() -> None:
    tight = replace(TINY, num_samples=60, pack_tokens=30, pack_tiles=2)
    samples = draw_samples(tight)
    assert max(len(s.tiles) for s in samples) == 2
    packs = pack_samples(samples, 30, 0, 2)
    assert sum(map(len, packs)) == 60
    assert all(sum(len(s.tiles) for s in pack) <= 2 for pack in packs)
