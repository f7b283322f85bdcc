"""A model small enough for every test, with weights large enough that its answers vary."""

from __future__ import annotations

import pytest
import torch

from internvl_lab.config import LanguageConfig, ModelConfig, TilingConfig, VisionConfig
from internvl_lab.inference import Processor
from internvl_lab.models import InternVL
from internvl_lab.text import ChatTemplate, train_tokenizer

VISION = VisionConfig(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=56, patch_size=14
)
LANGUAGE = LanguageConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=48,
    vocab_size=300,
    max_position_embeddings=512,
)


@pytest.fixture(scope="session")
def template() -> ChatTemplate:
    """Give a template of 300 tokens; treat it as read-only."""
    return ChatTemplate(train_tokenizer(["What colour is the large circle? It is red."] * 20, 300), system_message="")


@pytest.fixture(scope="session")
def tiling() -> TilingConfig:
    """Give up to four tiles of 56 px, 4 visual tokens each."""
    return TilingConfig(tile_size=56, num_visual_tokens=4, max_tiles=4)


@pytest.fixture(scope="session")
def model(template: ChatTemplate) -> InternVL:
    """Give random weights of a size that makes every answer depend on all of its prompt."""
    torch.manual_seed(0)
    model = InternVL(ModelConfig(vision=VISION, language=LANGUAGE), template.context_id)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture(scope="session")
def processor(template: ChatTemplate, tiling: TilingConfig) -> Processor:
    """Give the processor of this template and tiling."""
    return Processor(template, tiling)
