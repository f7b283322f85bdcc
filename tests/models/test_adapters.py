"""Adapters: where they sit, that they start as nothing, and that merging gives the same model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from internvl_lab.config import LoraConfig, ModelConfig
from internvl_lab.models import InternVL, add_adapters, add_low_rank, gather_weights, is_adapter
from internvl_lab.models.adapters import target_pattern

BOTH = LoraConfig(parts=("vision", "language"), rank=4, dropout=0.0)
LAYERS = {"vision": 6, "language": 7}
"""Adapted linear layers a layer of the part. Source: spec section 3 (the authors' fused qkv counts as three)."""


def randomise(model: InternVL) -> None:
    """Give every B a value, so that adapters count."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1, generator=generator)


@pytest.mark.parametrize("parts", [("vision",), ("language",), ("vision", "language")])
def test_every_linear_layer_of_the_parts_is_adapted_and_no_other(
    config: ModelConfig, build_model: Callable[..., InternVL], parts: tuple[str, ...]
) -> None:
    model = build_model(config)
    add_adapters(model, LoraConfig(parts=parts, rank=4))
    for part, module in model.parts().items():
        adapted = [name for name, _ in module.named_parameters() if "lora_A" in name]
        assert len(adapted) == (2 * LAYERS[part] if part in parts else 0), adapted


def test_new_adapters_change_no_bit_and_adding_them_twice_adds_them_once(
    config: ModelConfig, build_model: Callable[..., InternVL], pack_of: Callable[..., Any]
) -> None:
    model, pack = build_model(config).eval(), pack_of([(9, 1), (5, 0)])
    before = model(**pack.inputs)
    add_adapters(model, BOTH)
    names = list(model.state_dict())
    add_adapters(model, BOTH)
    assert list(model.state_dict()) == names
    assert torch.equal(model.eval()(**pack.inputs), before)


def test_merged_weights_give_the_logits_of_the_live_model(
    config: ModelConfig, build_model: Callable[..., InternVL], pack_of: Callable[..., Any]
) -> None:
    model, pack = build_model(config).eval(), pack_of([(9, 1), (5, 0)])
    plain = model(**pack.inputs)
    names = list(model.state_dict())
    add_adapters(model, BOTH)
    randomise(model)
    live = model.eval()(**pack.inputs)
    assert not torch.allclose(live, plain, atol=1e-2)
    merged = build_model(config).eval()
    weights = gather_weights(model)
    assert list(weights) == names
    merged.load_state_dict(weights)
    torch.testing.assert_close(merged(**pack.inputs), live, rtol=1e-4, atol=1e-4)


def test_ranks_that_only_help_to_gather_keep_nothing(
    small_config: ModelConfig, build_model: Callable[..., InternVL]
) -> None:
    assert gather_weights(build_model(small_config), keep=False) == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_formula(dtype: torch.dtype) -> None:
    weight, a, b = torch.ones(2, 3, dtype=dtype), torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0], [-1.0]])
    merged = add_low_rank(weight, a.to(dtype), b.to(dtype), 0.5)
    assert merged.dtype == dtype
    assert merged.tolist() == [[1.5, 2.0, 2.5], [0.5, 0.0, -0.5]]


def test_the_pattern_fits_the_names_of_both_models() -> None:
    import re

    pattern = re.compile(target_pattern(("language",)))
    assert pattern.fullmatch("language_model.layers.0.mlp.up_proj")
    assert pattern.fullmatch("model.language_model.layers.11.self_attn.q_proj")
    assert not pattern.fullmatch("model.vision_tower.encoder.layer.0.attention.q_proj")
    assert is_adapter("language_model.layers.0.mlp.up_proj.lora_A.default.weight")
