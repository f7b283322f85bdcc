"""The predicted peak against the one that torch's memory profiler measures, and the arithmetic of sharding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from internvl_lab.config import LoraConfig, StageConfig
from internvl_lab.config.compose import compose
from internvl_lab.constants import PARTS
from internvl_lab.scaling.memory import Layout, peak_memory
from internvl_lab.scaling.memory_blocks import PackUse

SCRIPT = Path(__file__).with_name("measured_memory.py")
TOLERANCE = 0.1
"""What the plan promises; the largest error of the cases here was 5.5 % (recomputed layers with adapters), most are
below 2 %."""
LONG = ([140, 100, 80], [4, 1, 3])
SHORT = ([240, 60], [11, 2])
ONLY_PROJECTOR = ("projector",)
BOTH = ("vision", "language")
IN_LANGUAGE, IN_BOTH = LoraConfig(parts=("language",), rank=8), LoraConfig(parts=BOTH, rank=8)


@pytest.fixture(scope="module")
def measured(import_file: Callable[[Path], ModuleType]) -> ModuleType:
    """Give the module that measures."""
    return import_file(SCRIPT)


def mini(vision: str = "300m", dtype: str = "float32", **language: int):
    config = compose(["experiment=quickstart", f"model/vision=mini/internvit_{vision}"]).model
    return replace(config, dtype=dtype, language=replace(config.language, **language))


def check(measured, config, pack=LONG, rows=60, precision="32-true", accumulation=1, **stage):
    """Measure two steps and compare."""
    lengths, tiles = pack
    settings = StageConfig(max_steps=2, **stage)
    found = measured.peak_bytes(config, settings, lengths, tiles, rows, precision=precision, accumulation=accumulation)
    predicted = peak_memory(
        config,
        PackUse(sum(lengths), sum(n * n for n in lengths), sum(tiles), sum(rows * n // sum(lengths) for n in lengths)),
        precision=precision,
        trainable=settings.trainable,
        lora=settings.lora,
        checkpointed=settings.gradient_checkpointing,
        accumulates=accumulation > 1,
        on_cpu=True,
    )
    print(
        f"measured {found / 1e6:.1f} MB, predicted {predicted.total / 1e6:.1f} MB, {predicted.total / found - 1:+.1%}"
    )
    assert predicted.total == pytest.approx(found, rel=TOLERANCE)


@pytest.mark.parametrize("vision", ["300m", "6b"])
@pytest.mark.parametrize(
    "stage",
    [
        {"trainable": PARTS},
        {"trainable": ONLY_PROJECTOR},
        {"trainable": PARTS, "gradient_checkpointing": BOTH},
    ],
    ids=["everything", "projector", "everything recomputed"],
)
def test_the_peak_is_predicted_within_a_tenth(measured, vision, stage):
    check(measured, mini(vision), **stage)


def test_the_peak_of_adapters_is_predicted_within_a_tenth(measured):
    check(measured, mini(), trainable=ONLY_PROJECTOR, lora=IN_LANGUAGE)


def test_the_peak_in_bf16_is_predicted_within_a_tenth(measured):
    check(measured, mini("6b"), trainable=PARTS, precision="bf16-mixed")


@pytest.mark.slow
@pytest.mark.parametrize("vision", ["300m", "6b"])
@pytest.mark.parametrize(
    "case",
    [
        {"trainable": PARTS, "pack": SHORT},
        {"trainable": PARTS, "drop_path_rate": 0.3},
        {"trainable": PARTS, "accumulation": 2},
        {"trainable": PARTS, "gradient_checkpointing": ("vision",)},
        {"trainable": PARTS, "gradient_checkpointing": ("language",)},
        {"trainable": ("vision", "projector")},
        {"trainable": ("projector", "language")},
        {"trainable": ("language",), "pack": SHORT},
        {"trainable": ONLY_PROJECTOR, "gradient_checkpointing": ("language",)},
        {"trainable": ONLY_PROJECTOR, "lora": IN_BOTH},
        {"trainable": (), "lora": IN_LANGUAGE, "precision": "bf16-mixed"},
        {"trainable": ONLY_PROJECTOR, "lora": replace(IN_BOTH, dropout=0.0), "gradient_checkpointing": BOTH},
        {"trainable": ONLY_PROJECTOR, "precision": "bf16-mixed"},
        {"trainable": PARTS, "precision": "bf16-mixed", "gradient_checkpointing": BOTH},
    ],
    ids=str,
)
def test_the_peak_of_further_stages_is_predicted_within_a_tenth(measured, vision, case):
    check(measured, mini(vision), **case)


@pytest.mark.slow
@pytest.mark.parametrize("vision", ["300m", "6b"])
@pytest.mark.parametrize(
    "case", [{"trainable": PARTS}, {"trainable": ONLY_PROJECTOR}, {"gradient_checkpointing": BOTH}]
)
def test_the_peak_of_a_bf16_model_is_predicted_within_a_tenth(measured, vision, case):
    check(measured, mini(vision, dtype="bfloat16"), **{"trainable": PARTS, **case})


@pytest.mark.slow
@pytest.mark.parametrize("rows_a_chunk", [None, 32])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_peak_of_a_large_vocabulary_is_predicted_within_a_tenth(measured, rows_a_chunk, accumulation):
    config = mini(vocab_size=20_000)
    if rows_a_chunk is not None:
        config = replace(config, logits_byte_budget=20_000 * 4 * rows_a_chunk)
    check(measured, config, rows=200, accumulation=accumulation, trainable=PARTS)


ONE_GPU = Layout()


def planned(layout=ONE_GPU, trainable=PARTS, **changes):
    keys = {"precision": "32-true", "trainable": trainable, "lora": LoraConfig(), "layout": layout, **changes}
    return peak_memory(mini(), PackUse(1024, 1024**2, 20, 150), **keys)


def test_ddp_adds_its_buckets_and_nothing_else():
    one, two = planned(), planned(Layout(2, "ddp"))
    trained = 4 * 1_815_296
    assert two.communication == trained
    assert replace(two, communication=0) == one
    assert one.weights == trained
    assert one.optimizer == 2 * trained


def test_fsdp2_shares_what_stays_and_gathers_what_is_needed():
    one, four = planned(), planned(Layout(4, "fsdp2"))
    assert (four.weights, four.optimizer) == (one.weights / 4, one.optimizer / 4)
    assert four.gradients <= one.gradients / 4
    layer = 4 * (128 * (128 * 2 + 64 * 2 + 3 * 320))
    assert four.communication > 2 * layer
    eight = planned(Layout(8, "fsdp2"))
    assert eight.total < four.total < planned(Layout(2, "fsdp2")).total


def test_gradients_that_are_summed_up_are_there_all_the_time():
    once, summed = planned(), planned(accumulates=True)
    assert summed.total >= once.total
    assert summed.gradients == 4 * 1_815_296


def test_the_total_is_the_sum():
    memory = planned(Layout(2, "fsdp2"))
    assert memory.total == sum(vars(memory).values())
