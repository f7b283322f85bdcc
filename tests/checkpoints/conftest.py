"""Tiny models, and checkpoints in the authors' format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from internvl_lab.config import LanguageConfig, ModelConfig, VisionConfig
from internvl_lab.models import InternVL

CONFIG = ModelConfig(
    vision=VisionConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=56, patch_size=14
    ),
    language=LanguageConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        vocab_size=300,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        rope_theta=5e4,
    ),
)
SIX_B = replace(
    CONFIG,
    vision=replace(CONFIG.vision, norm_type="rms_norm", use_qk_norm=True, attention_bias=False),
    language=replace(CONFIG.language, model_type="llama", rope_scaling_factor=2.0),
)


@pytest.fixture(params=[CONFIG, SIX_B], ids=["300m_qwen2", "6b_llama"])
def config(request: pytest.FixtureRequest) -> ModelConfig:
    """Give both kinds of model in turn."""
    kind: ModelConfig = request.param
    return kind


@pytest.fixture
def make_model() -> Callable[..., InternVL]:
    """Give a function that builds a random model; equal seeds give equal weights."""

    def make(config: ModelConfig = CONFIG, seed: int = 0) -> InternVL:
        torch.manual_seed(seed)
        model = InternVL(config, 293)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        return model.eval()

    return make


@pytest.fixture
def same() -> Callable[[InternVL, InternVL], dict[str, bool]]:
    """Give a function that says for each part whether two models agree to the bit."""

    def compare(one: InternVL, other: InternVL) -> dict[str, bool]:
        result = {}
        for name, part in one.parts().items():
            pairs: list[tuple[Tensor, Tensor]] = list(
                zip(part.state_dict().values(), other.parts()[name].state_dict().values(), strict=True)
            )
            result[name] = all(torch.equal(a, b) for a, b in pairs)
        return result

    return compare


@pytest.fixture
def golden() -> Path:
    """Give the folder with checkpoints in the authors' format."""
    return Path(__file__).resolve().parents[1] / "assets" / "golden"
