"""The formula against torch's own counter, and against the published table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from internvl_lab.config import LanguageConfig, LoraConfig, ModelConfig, VisionConfig
from internvl_lab.constants import PARTS
from internvl_lab.models import InternVL, add_adapters, is_adapter, pack_cost, step_flops
from internvl_lab.models.flops import FLOP_PARTS, flops_by_part, vision_flops

SAMPLES = [(30, 1), (21, 0), (40, 2)]


def counted(model: InternVL, pack: Any, backward: bool) -> int:
    """Count what torch executes; its counter knows the math kernel only, which computes full squares."""
    labels = pack.inputs["input_ids"]  # all rows supervised
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        losses = model.token_losses(model(**pack.inputs), labels).losses
        if backward:
            losses.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "trainable", [(), ("projector",), ("vision", "projector"), ("language",), ("projector", "language"), PARTS]
)
def test_the_formula_equals_torchs_counter(
    trainable: tuple[str, ...],
    config: ModelConfig,
    build_model: Callable[[ModelConfig], InternVL],
    pack_of: Callable[..., Any],
) -> None:
    model, pack = build_model(config), pack_of(SAMPLES)
    for name, part in model.parts().items():
        part.requires_grad_(name in trainable)
    formula = step_flops(
        config,
        tokens=sum(pack.lengths),
        sum_sq=sum(n * n for n in pack.lengths),
        tiles=3,
        supervised_rows=sum(pack.lengths),
        trainable=trainable,
        causal=False,
    )
    assert formula == pytest.approx(counted(model, pack, bool(trainable)), rel=1e-3)


@pytest.mark.parametrize("parts", [("vision",), ("language",), ("vision", "language")])
def test_adapters_cost_the_way_back_but_no_weight_gradients(
    parts: tuple[str, ...],
    config: ModelConfig,
    build_model: Callable[[ModelConfig], InternVL],
    pack_of: Callable[..., Any],
) -> None:
    """The adapters' own work (rank 1 here) is left out; the first layer needs no gradient of its input."""
    model, pack = build_model(config), pack_of(SAMPLES)
    lora = LoraConfig(parts=parts, rank=1)
    add_adapters(model, lora)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_adapter(name))
    keys = {"tokens": sum(pack.lengths), "sum_sq": sum(n * n for n in pack.lengths), "tiles": 3}
    formula = step_flops(config, **keys, supervised_rows=sum(pack.lengths), trainable=(), adapted=parts, causal=False)
    assert formula == pytest.approx(counted(model, pack, True), rel=0.15)


def test_causal_attention_counts_half_and_the_head_counts_by_row(small_config: ModelConfig) -> None:
    def count(**changes: Any) -> float:
        keys = {"tokens": 0, "sum_sq": 0, "tiles": 0, "supervised_rows": 0, "trainable": ()}
        return step_flops(small_config, **(keys | changes))

    assert count(sum_sq=100) == count(sum_sq=100, causal=False) / 2 == 100 * 2 * 2 * 32
    assert count(supervised_rows=3) == 3 * 2 * 32 * 64
    assert count(supervised_rows=3, trainable=PARTS) == 3 * count(supervised_rows=3)
    assert count(tokens=1, trainable=("projector",)) == 2 * count(tokens=1)


@pytest.mark.parametrize("trainable", [(), ("projector",), ("vision", "projector"), PARTS])
@pytest.mark.parametrize("adapted", [(), ("language",)])
def test_the_parts_add_up_to_the_step(config: ModelConfig, trainable: Any, adapted: Any) -> None:
    keys = {"tokens": 70, "sum_sq": 900, "tiles": 5, "supervised_rows": 31}
    parts = flops_by_part(config, **keys, trainable=trainable, adapted=adapted)
    assert tuple(parts) == FLOP_PARTS
    assert sum(parts.values()) == step_flops(config, **keys, trainable=trainable, adapted=adapted)
    assert min(parts.values()) > 0


def test_each_part_is_what_only_it_counts(config: ModelConfig) -> None:
    """Of a pack without tiles only the language model works, of one without labels not its head, and so on."""
    keys = {"tokens": 0, "sum_sq": 0, "tiles": 0, "supervised_rows": 0}
    counted_as = {"tokens": {"language"}, "sum_sq": {"attention"}, "tiles": {"vision", "projector"}}
    for key, names in (counted_as | {"supervised_rows": {"head"}}).items():
        parts = flops_by_part(config, **(keys | {key: 7}), trainable=PARTS)
        assert {name for name, value in parts.items() if value} == names


def test_the_pack_cost_is_the_step_without_its_head(config: ModelConfig) -> None:
    for trainable in (("projector",), ("vision", "projector"), PARTS):
        a, b, c = pack_cost(config, trainable)
        step = step_flops(config, tokens=70, sum_sq=900, tiles=5, supervised_rows=0, trainable=trainable)
        assert a * 70 + b * 900 + c * 5 == pytest.approx(step)


def test_the_published_sizes_cost_what_the_notes_say() -> None:
    """0.73 TFLOP a tile, and 138 TFLOP for a pack of 16,384 tokens, 40 tiles, 15 samples, all trainable."""
    config = ModelConfig(vision=VisionConfig(), language=LanguageConfig())
    assert sum(vision_flops(config)) == pytest.approx(0.73e12, rel=0.01)
    sample = 16_384 / 15
    step = step_flops(config, tokens=16_384, sum_sq=15 * sample**2, tiles=40, supervised_rows=16_384, trainable=PARTS)
    assert step == pytest.approx(138e12, rel=0.01)


def test_a_backward_pass_runs_for_real(
    small_config: ModelConfig, build_model: Callable[[ModelConfig], InternVL], pack_of: Callable[..., Any]
) -> None:
    forward = counted(build_model(small_config), pack_of(SAMPLES), backward=False)
    both = counted(build_model(small_config), pack_of(SAMPLES), backward=True)
    assert 2.8 < both / forward < 3.0
    assert torch.is_grad_enabled()
