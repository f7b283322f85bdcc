"""Key maps in both directions: one inverse of the other on every tensor of a model, and parts without their roots."""

from __future__ import annotations

import pytest
import torch

from internvl_lab.checkpoints.names import official_tensors, root_of, to_native, to_official
from internvl_lab.checkpoints.tensors import native_tensors
from internvl_lab.config import LanguageConfig, ModelConfig
from internvl_lab.constants import PARTS
from internvl_lab.errors import CheckpointError
from internvl_lab.models import build_on_meta

GROUPED = LanguageConfig(hidden_size=16, num_attention_heads=4, num_key_value_heads=2, model_type="llama")


def test_every_native_key_goes_out_and_comes_back(config: ModelConfig) -> None:
    shapes = native_tensors(build_on_meta(config), PARTS)
    back: dict[str, torch.Size] = {}
    for tensor in official_tensors(list(shapes), config.language):
        assert tensor.name.startswith(("vision_model.", "mlp1.", "language_model."))
        fused = to_official(tensor.name, [shapes[key] for key in tensor.keys], config.language)
        back |= {key: part.shape for key, part in to_native(tensor.name, fused, config.language)}
    assert back == {key: tensor.shape for key, tensor in shapes.items()}


def test_wqkv_is_fused_by_key_value_head() -> None:
    """Two groups, two queries a group, four rows a head: the rows of `test_official` in the other direction."""
    queries, keys, values = torch.arange(0.0, 16), torch.arange(16.0, 24), torch.arange(24.0, 32)
    rows = [part[:, None].expand(-1, 16) for part in (queries, keys, values)]
    fused = to_official("language_model.model.layers.0.attention.wqkv.weight", rows, GROUPED)
    assert fused[:, 0].tolist() == [
        *range(0, 8),
        *range(16, 20),
        *range(24, 28),
        *range(8, 16),
        *range(20, 24),
        *range(28, 32),
    ]


def test_q_k_and_v_are_fused_in_this_order_whatever_stands_between() -> None:
    stem = "model.vision_tower.encoder.layer.3.attention"
    keys = [
        f"{stem}.{name}" for name in ("q_proj.bias", "q_proj.weight", "k_proj.bias", "k_proj.weight", "v_proj.bias")
    ]
    planned = {tensor.name: tensor.keys for tensor in official_tensors(keys, GROUPED)}
    assert planned["vision_model.encoder.layers.3.attn.qkv.bias"] == (keys[0], keys[2], keys[4])


@pytest.mark.parametrize(
    ("names", "root"),
    [
        (["vision_model.x", "mlp1.0.weight"], ""),
        (["model.vision_tower.x"], ""),
        (["vision_tower.x"], ""),
        (["model.language_model.norm.weight", "lm_head.weight"], ""),
        (["embeddings.class_embedding", "encoder.layers.0.ls1"], "vision_model."),
        (["embeddings.cls_token", "encoder.layer.0.lambda_1"], "model.vision_tower."),
        (["lm_head.weight", "model.layers.0.mlp.up_proj.weight"], "language_model."),
        (["output.weight", "model.tok_embeddings.weight"], "language_model."),
        (["0.weight", "3.bias"], "mlp1."),
        (["linear_1.weight"], "model.multi_modal_projector."),
        (["optimizer.step"], ""),
    ],
)
def test_parts_alone_are_known_by_their_names(names: list[str], root: str) -> None:
    assert root_of(names) == root


@pytest.mark.parametrize(
    ("name", "native"),
    [
        ("model.lm_head.weight", "lm_head.weight"),
        ("model.language_model.norm.weight", "model.language_model.norm.weight"),
        ("vision_tower.embeddings.cls_token", "model.vision_tower.embeddings.cls_token"),
        ("multi_modal_projector.linear_1.bias", "model.multi_modal_projector.linear_1.bias"),
        ("language_model.model.norm.weight", "model.language_model.norm.weight"),
    ],
)
def test_older_native_names_and_those_of_our_checkpoints(name: str, native: str) -> None:
    assert [key for key, _ in to_native(name, torch.zeros(1), None)] == [native]


def test_what_cannot_be_translated_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"without a config\.json"):
        to_native("language_model.model.layers.0.attention.wqkv.weight", torch.zeros(32, 16), None)
    with pytest.raises(CheckpointError, match=r"model\.head\.weight has no counterpart"):
        official_tensors(["model.head.weight"], GROUPED)


@pytest.mark.parametrize("shape", [(), (7,)])
def test_a_fused_tensor_of_any_shape_comes_back_to_be_reported(shape: tuple[int, ...], config: ModelConfig) -> None:
    for name in ("language_model.model.layers.0.attention.wqkv.weight", "vision_model.encoder.layers.0.attn.qkv.bias"):
        assert to_native(name, torch.zeros(shape), config.language)
