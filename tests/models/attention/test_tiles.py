"""The encoder's attention: every backend equals the formula, in both directions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from internvl_lab.config import ModelConfig
from internvl_lab.errors import ConfigError
from internvl_lab.models import InternVL
from internvl_lab.models.attention import TILE_BACKENDS, check_tiles, resolve_tiles, tile_attention
from internvl_lab.models.attention.kernels import load_function, why_not_here
from internvl_lab.models.attention.tiles import tile_attention_flash2


@pytest.fixture(params=list(TILE_BACKENDS))
def name(request: pytest.FixtureRequest) -> str:
    """Give the name of every backend; those that cannot run here are skipped, with the reason."""
    chosen = str(request.param)
    kernel = TILE_BACKENDS[chosen].kernel
    if kernel is not None:
        reason = why_not_here(kernel, "cuda" if torch.cuda.is_available() else "cpu", half=True)
        if reason is not None:
            pytest.skip(reason)
    return chosen


def states(device: str = "cpu", dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(3, 2, 17, 8, generator=generator).to(device, dtype).requires_grad_() for _ in range(3)]


def reference(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return ((query @ key.transpose(2, 3) / math.sqrt(8)).softmax(-1) @ value).transpose(1, 2)


def test_values_and_gradients_equal_the_formula(name: str) -> None:
    backend = TILE_BACKENDS[name]
    device, dtype, tolerance = ("cuda", torch.bfloat16, 0.05) if backend.kernel else ("cpu", torch.float32, 1e-5)
    ours, wanted = states(device, dtype), states()
    output, _ = ALL_ATTENTION_FUNCTIONS[backend.registered_name](nn.Module(), *ours, None, scaling=1 / math.sqrt(8))
    expected = reference(*wanted)
    torch.testing.assert_close(output.float().cpu(), expected, rtol=tolerance, atol=tolerance)
    output.float().square().sum().backward()
    expected.square().sum().backward()
    for mine, theirs in zip(ours, wanted, strict=True):
        torch.testing.assert_close(mine.grad.float().cpu(), theirs.grad, rtol=10 * tolerance, atol=tolerance)


def test_eager_shows_its_weights() -> None:
    query, key, value = states()
    output, weights = TILE_BACKENDS["eager"].function(nn.Module(), query, key, value, None)
    assert weights.shape == (3, 2, 17, 17)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2, 17))
    torch.testing.assert_close((weights @ value).transpose(1, 2), output)


def test_autocast_leaves_the_kernel_in_fp32() -> None:
    inputs = [x.detach() for x in states()]
    plain, _ = tile_attention(nn.Module(), *inputs, None)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = tile_attention(nn.Module(), *inputs, None)
    assert torch.equal(plain, mixed)


def test_flash2_gets_tokens_before_heads_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def kernel(query: Tensor, key: Tensor, value: Tensor, *, softmax_scale: float, causal: bool) -> Tensor:
        seen.update(shape=tuple(query.shape), dtypes={x.dtype for x in (query, key, value)}, causal=causal)
        seen["scale"] = softmax_scale
        return reference(*(x.transpose(1, 2).float() for x in (query, key, value))).to(value.dtype)

    monkeypatch.setattr("internvl_lab.models.attention.tiles.why_not_here", lambda *_, **__: None)
    monkeypatch.setattr("internvl_lab.models.attention.kernels.load_function", lambda *_: kernel)
    query, key, value = states()
    output, weights = tile_attention_flash2(nn.Module(), query, key, value.bfloat16(), None, scaling=1 / math.sqrt(8))
    assert seen == {"shape": (3, 17, 2, 8), "dtypes": {torch.bfloat16}, "causal": False, "scale": 1 / math.sqrt(8)}
    assert weights is None
    torch.testing.assert_close(output.float(), reference(*states()), rtol=0.05, atol=0.05)


def test_auto_is_sdpa_and_what_cannot_run_is_one_sentence() -> None:
    assert resolve_tiles("auto") is TILE_BACKENDS["sdpa"]
    assert not [b for b in TILE_BACKENDS.values() if "flash" in b.registered_name]
    with pytest.raises(ConfigError, match=r"model\.vision_attention='fast'.*auto, sdpa, flash2, eager"):
        resolve_tiles("fast")
    check_tiles("eager", "cpu", half=False)
    with pytest.raises(ConfigError, match=r"model\.vision_attention=flash2 is not available: ") as caught:
        check_tiles("flash2", "cpu", half=True)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not isinstance(load_function("flash_attn", "flash_attn_func"), str), reason="flash-attn is here")
def test_a_model_with_a_missing_backend_is_not_built(small_config: ModelConfig) -> None:
    with pytest.raises(ConfigError, match=r"vision_attention=flash2.*flash_attn is not installed; pip install"):
        InternVL(replace(small_config, vision_attention="flash2"), 57)


def test_the_encoder_gives_the_same_features_with_each(
    small_config: ModelConfig, build_model: Callable[[ModelConfig], InternVL]
) -> None:
    tiles = torch.randint(0, 256, (2, 3, 56, 56), dtype=torch.uint8)
    features = [build_model(replace(small_config, vision_attention=n)).encode_tiles(tiles) for n in ("sdpa", "eager")]
    torch.testing.assert_close(*features, rtol=1e-5, atol=1e-5)
