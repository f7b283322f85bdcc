"""Greedy answers equal transformers' `generate` on the exported model, token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import InternVLForConditionalGeneration

from internvl_lab.api import load, weights_folder
from internvl_lab.checkpoints.convert import convert
from internvl_lab.constants import IMAGENET_MEAN, IMAGENET_STD
from internvl_lab.inference import Generator, Processor, Prompt
from internvl_lab.models import InternVL

SCENE = Path(__file__).parents[1] / "assets" / "scene.png"
NEW_TOKENS = 24


def theirs(peer: Any, prompt: Prompt, end_id: int) -> list[int]:
    """Let transformers answer one prompt; the ids without the end token."""
    ids = torch.from_numpy(prompt.input_ids.astype(np.int64))[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if prompt.num_tiles:
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        inputs["pixel_values"] = (torch.from_numpy(prompt.pixel_values).float() / 255 - mean) / std
    limits = {"max_new_tokens": NEW_TOKENS, "eos_token_id": end_id, "pad_token_id": 0, "do_sample": False}
    answer: list[int] = peer.generate(**inputs, **limits)[0, ids.shape[1] :].tolist()
    return answer[: answer.index(end_id)] if end_id in answer else answer


def mixed_prompts(processor: Processor) -> list[Prompt]:
    """Make text, image, multi-image and video prompts of different lengths."""
    scene = Image.open(SCENE).convert("RGB")
    wide, small = scene.resize((336, 112)), scene.resize((112, 112))
    return [
        processor("Which is larger, 34 or 71?", key="text"),
        processor("Describe the image.", [scene], key="image"),
        processor("List every cell.", [wide], key="wide"),
        processor("What is new in Image-2?", [small, scene], key="images"),
        processor("Describe the motion.", [small, small.rotate(90), small], is_video=True, key="video"),
    ]


def check_equal(model: InternVL, processor: Processor, peer: Any) -> None:
    """Compare one batch of ours with one call a prompt of theirs."""
    prompts = mixed_prompts(processor)
    ours = Generator(model, processor.template, NEW_TOKENS).sample(prompts)
    expected = [theirs(peer, prompt, processor.template.end_id) for prompt in prompts]
    assert [list(answers[0].token_ids) for answers in ours] == expected
    assert len({tuple(ids) for ids in expected}) >= len(prompts) - 1, "the test needs answers that differ"


def test_quickstart_equals_the_exported_model(tmp_path: Path) -> None:
    convert([weights_folder("asset:quickstart")], tmp_path / "native", "native")
    peer = InternVLForConditionalGeneration.from_pretrained(tmp_path / "native", dtype=torch.float32).eval()
    check_equal(*load("asset:quickstart"), peer)


def test_random_weights_equal_the_same_in_transformers(model: InternVL, processor: Processor) -> None:
    build_peer = pytest.importorskip("internvl_lab.bench.peers").build_peer
    check_equal(model, processor, build_peer(model).eval())
