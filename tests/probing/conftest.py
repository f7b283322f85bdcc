"""A tiny encoder, a trainer without any output, and folders of tiny pictures in the public layouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from internvl_lab.config import VisionConfig
from internvl_lab.models import build_vision
from internvl_lab.probing.encoder import Encoder

VISION = VisionConfig(
    hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48, image_size=28, patch_size=14
)


@pytest.fixture
def encoder() -> Encoder:
    """Give a random encoder of 3 layers for pictures of 28 pixels."""
    torch.manual_seed(1)
    return Encoder("tiny", "0123", VISION, build_vision(VISION).requires_grad_(False).eval())


@pytest.fixture
def build_trainer() -> Callable[..., L.Trainer]:
    """Give a function that builds a silent trainer."""

    def build(**fixed: Any) -> L.Trainer:
        quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
        return L.Trainer(accelerator="cpu", enable_progress_bar=False, **quiet, **fixed)

    return build


@pytest.fixture
def write_picture() -> Callable[..., Path]:
    """Give a function that writes a picture of one colour (by its class) with noise, and returns its path."""

    def write(path: Path, level: int = 0, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(len(str(path)) + level)
        pixels = rng.integers(0, 40, (size[1], size[0], 3)) + 60 * np.array([level % 3, level // 3 % 3, 1])
        Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(path)
        return path

    return write
