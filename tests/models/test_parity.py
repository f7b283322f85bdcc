"""Parity with the authors' code on golden checkpoints: both encoder kinds, Qwen2 and InternLM2, and odd shapes.

The tensors in `tests/assets/golden` are what the authors' code computes in fp32 (see the README there). Tolerance
5e-6: measured differences are 0.5 to 2.4e-6 on values up to 8.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from internvl_lab.checkpoints import load_official
from internvl_lab.models import BACKENDS, InternVL

GOLDEN = Path(__file__).resolve().parents[1] / "assets" / "golden"
TOLERANCE = 5e-6


@pytest.fixture(params=["300m_qwen2", "6b_internlm2", "long_internlm2"])
def folder(request: pytest.FixtureRequest) -> Path:
    return GOLDEN / str(request.param)


def logits_of(model: InternVL, reference: dict[str, Tensor]) -> Tensor:
    num_tokens = reference["input_ids"].shape[1]
    hidden = model(
        input_ids=reference["input_ids"],
        position_ids=torch.arange(num_tokens)[None],
        cu_seqlens=torch.tensor([0, num_tokens], dtype=torch.int32),
        max_seqlen=num_tokens,
        pixel_values=reference["pixel_values"],
    )
    return model.lm_head(hidden)


@pytest.mark.parametrize("backend", [name for name, backend in BACKENDS.items() if not backend.needs_kernel])
def test_features_visual_tokens_and_logits_equal_the_authors(folder: Path, backend: str) -> None:
    reference = load_file(folder / "reference.safetensors")
    model = load_official(folder, attention=backend).eval()
    assert model.image_token_id == model.config.language.vocab_size - 7
    with torch.inference_mode():
        ours = {
            "vision_features": model.vision_tower(pixel_values=reference["pixel_values"]).last_hidden_state,
            "projected": model.encode_tiles(reference["pixel_values"]),
            "logits": logits_of(model, reference),
        }
    for name, tensor in ours.items():
        assert tensor.shape == reference[name].shape
        assert (tensor - reference[name]).abs().max() <= TOLERANCE, name
