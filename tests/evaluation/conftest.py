"""A tiny model, and shards with one task of each kind."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from internvl_lab.config import LanguageConfig, ModelConfig, TilingConfig, VisionConfig
from internvl_lab.data import RawSample, write_shards
from internvl_lab.models import InternVL
from internvl_lab.text import ChatTemplate, train_tokenizer

VISION = VisionConfig(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=56, patch_size=14
)
LANGUAGE = LanguageConfig(
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=48,
    vocab_size=300,
    max_position_embeddings=512,
)
BOX = "<ref>it</ref><box>[[100, 100, 500, 500]]</box>"


@pytest.fixture(scope="session")
def template() -> ChatTemplate:
    """Give a template of 300 tokens; treat it as read-only."""
    return ChatTemplate(train_tokenizer(["What colour is the large circle? It is red."] * 20, 300), system_message="")


@pytest.fixture(scope="session")
def tiling() -> TilingConfig:
    """Give up to two tiles of 56 px, 4 visual tokens each."""
    return TilingConfig(tile_size=56, num_visual_tokens=4, max_tiles=2)


@pytest.fixture
def model(template: ChatTemplate) -> InternVL:
    """Give random weights of a size that makes answers differ."""
    torch.manual_seed(0)
    model = InternVL(ModelConfig(vision=VISION, language=LANGUAGE), template.context_id)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def png(seed: int, width: int = 56) -> tuple[str, bytes]:
    """Draw random pixels as a PNG file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (56, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "png", buffer.getvalue()


def sample(key: str, task: str, question: str, answer: str, images: int = 0, **fields: Any) -> RawSample:
    """Make a raw sample with random pictures."""
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    record = {"id": key, "conversations": turns, "task": task, "answer": answer, **fields}
    return RawSample(key, record, tuple(png(100 * int(key) + k, 56 + 56 * (k % 2)) for k in range(images)))


@pytest.fixture(scope="session")
def val_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give shards of 15 samples: five kinds of task in turn, three questions each."""
    samples = []
    for i in range(3):
        key = 5 * i
        samples += [
            sample(f"{key}", "attribute", "<image>\nWhat colour?", "red", 1),
            sample(f"{key + 1}", "grounding", "<image>\nWhere?", BOX, 1),
            sample(f"{key + 2}", "multi_image", "Image-1: <image>\nImage-2: <image>\nAlike?", "no", 2),
            sample(f"{key + 3}", "video", "<video>\nWhat happens?", "it moves", 3, video=["a", "b", "c"]),
            sample(f"{key + 4}", "text_only", f"What is {i} + 1?", str(i + 1)),
        ]
    folder = tmp_path_factory.mktemp("shards") / "val"
    write_shards(samples, folder, samples_per_shard=8)
    return folder
