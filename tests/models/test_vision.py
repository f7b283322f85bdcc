"""The encoder: transformers' numbers, drop path per tile, sound random weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers.models.internvl.modeling_internvl import InternVLVisionModel

from internvl_lab.config import ModelConfig
from internvl_lab.models import build_vision, set_drop_path
from internvl_lab.models.vision import VisionLayer, to_transformers_vision

TILES = torch.randn(6, 3, 56, 56, generator=torch.Generator().manual_seed(3))


def layers(vision: torch.nn.Module) -> list[VisionLayer]:
    return [module for module in vision.modules() if isinstance(module, VisionLayer)]


def test_it_computes_what_transformers_computes_under_the_same_names(config: ModelConfig) -> None:
    ours = build_vision(config.vision)
    theirs = InternVLVisionModel(to_transformers_vision(config.vision))
    theirs.load_state_dict(ours.state_dict())
    difference = ours(TILES).last_hidden_state - theirs(TILES).last_hidden_state
    assert difference.abs().max() < 5e-6


def test_gradients_equal_those_of_transformers(config: ModelConfig) -> None:
    ours = build_vision(config.vision)
    theirs = InternVLVisionModel(to_transformers_vision(config.vision))
    theirs.load_state_dict(ours.state_dict())
    for model in (ours, theirs):
        model(TILES).last_hidden_state.square().sum().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-4)


def test_drop_path_grows_linearly_and_refuses_impossible_rates(small_config: ModelConfig) -> None:
    vision = build_vision(replace(small_config.vision, num_hidden_layers=5))
    set_drop_path(vision, 0.4)
    assert [layer.drop_path_rate for layer in layers(vision)] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    for rate in (-0.1, 1.0):
        with pytest.raises(ValueError, match="drop path"):
            set_drop_path(vision, rate)


def test_drop_path_drops_whole_branches_of_single_tiles_and_only_in_training(small_config: ModelConfig) -> None:
    vision = build_vision(replace(small_config.vision, layer_scale_init=1.0, num_hidden_layers=1))
    layer = layers(vision)[0]
    layer.drop_path_rate = 0.5
    hidden = torch.randn(64, 17, 16)
    layer.eval()
    attended = layer.attention(layer.layernorm_before(hidden))[0]
    full = layer(hidden)
    torch.testing.assert_close(full, hidden + attended + layer.mlp(layer.layernorm_after(hidden + attended)))
    layer.train()
    dropped = layer(hidden)
    untouched = (dropped == hidden).flatten(1).all(1)
    partly = (dropped == hidden).flatten(1).any(1) & ~untouched
    assert 4 <= int(untouched.sum()) <= 32, "about a quarter of the tiles loses both branches"
    assert not partly.any(), "a tile keeps or loses a branch as a whole"
    both = hidden + 2 * attended + 2 * layer.mlp(layer.layernorm_after(hidden + 2 * attended))
    assert any(torch.allclose(row, want, atol=1e-5) for row, want in zip(dropped, both, strict=True)), "kept / 0.5"


def test_drop_path_keeps_the_expected_output(small_config: ModelConfig) -> None:
    vision = build_vision(replace(small_config.vision, layer_scale_init=0.1, num_hidden_layers=1))
    layer = layers(vision)[0]
    hidden = torch.randn(1, 17, 16)
    expected = layer.eval()(hidden) - hidden
    layer.drop_path_rate = 0.25
    mean = (layer.train()(hidden.expand(4000, -1, -1)) - hidden).mean(0, keepdim=True)
    assert (mean - expected).abs().max() < 0.1 * expected.abs().max()


def test_random_weights_are_sound(config: ModelConfig) -> None:
    vision = build_vision(replace(config.vision, layer_scale_init=0.3))
    for name, parameter in vision.named_parameters():
        if "lambda" in name:
            assert (parameter == 0.3).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            assert 0.01 < parameter.std() < 0.03, name


def test_hidden_states_of_all_layers_can_be_read(small_config: ModelConfig) -> None:
    output = build_vision(small_config.vision)(TILES, output_hidden_states=True)
    assert len(output.hidden_states) == 3
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
