"""Tiny models of both encoder kinds and both language models, and packs for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from internvl_lab.config import LanguageConfig, ModelConfig, VisionConfig
from internvl_lab.constants import IGNORE_INDEX
from internvl_lab.models import InternVL

IMAGE_TOKEN = 57
VISION = VisionConfig(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=56, patch_size=14
)
LANGUAGE = LanguageConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=48,
    vocab_size=64,
    max_position_embeddings=256,
)
SMALL = {
    "300m_qwen2": ModelConfig(vision=VISION, language=LANGUAGE),
    "6b_llama": ModelConfig(
        vision=replace(VISION, norm_type="rms_norm", use_qk_norm=True, attention_bias=False),
        language=replace(LANGUAGE, model_type="llama", rope_scaling_factor=2.0),
    ),
}


@dataclass
class Pack:
    """Hold one pack as `InternVL.forward` takes it, and its labels."""

    inputs: dict[str, Tensor | int]
    labels: Tensor
    lengths: list[int]


def build(config: ModelConfig) -> InternVL:
    """Build a model whose weights are large enough that every output depends on every visible input."""
    torch.manual_seed(0)
    model = InternVL(config, IMAGE_TOKEN)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    return model


def make_pack(samples: list[tuple[int, int]], seed: int = 0) -> Pack:
    """Make a pack of (text tokens, tiles) samples, four visual tokens a tile, half of the text supervised."""
    generator = torch.Generator().manual_seed(seed)
    ids, labels, positions = [], [], []
    for text, tiles in samples:
        words = torch.randint(0, 50, (text,), generator=generator)
        sample = torch.cat([words[:2], torch.full((4 * tiles,), IMAGE_TOKEN), words[2:]])
        target = torch.cat([sample[1:], torch.tensor([IGNORE_INDEX])])
        target[: len(sample) // 2] = IGNORE_INDEX
        target[target == IMAGE_TOKEN] = IGNORE_INDEX
        ids.append(sample)
        labels.append(target)
        positions.append(torch.arange(len(sample)))
    lengths = [len(sample) for sample in ids]
    num_tiles = sum(tiles for _, tiles in samples)
    pixels = torch.randint(0, 256, (num_tiles, 3, 56, 56), generator=generator, dtype=torch.uint8)
    inputs = {
        "input_ids": torch.cat(ids)[None],
        "position_ids": torch.cat(positions)[None],
        "cu_seqlens": torch.tensor([0, *lengths]).cumsum(0).int(),
        "max_seqlen": max(lengths),
        "pixel_values": pixels,
    }
    return Pack(inputs, torch.cat(labels)[None], lengths)


@pytest.fixture(params=list(SMALL))
def config(request: pytest.FixtureRequest) -> ModelConfig:
    """Give each small configuration in turn."""
    return SMALL[request.param]


@pytest.fixture
def small_config() -> ModelConfig:
    """Give the small 300M-style model on Qwen2."""
    return SMALL["300m_qwen2"]


@pytest.fixture
def build_model() -> Callable[[ModelConfig], InternVL]:
    """Give the function that builds a model with seeded, large weights."""
    return build


@pytest.fixture
def pack_of() -> Callable[..., Pack]:
    """Give the function that makes packs."""
    return make_pack
