"""The encoder's attention: dense, in both directions, inside tiles of equal length.

| backend  | how                                                                   | where      |
|----------|-----------------------------------------------------------------------|------------|
| `sdpa`   | torch's SDPA, whose CUDA kernels are flash attention already; `auto`  | everywhere |
| `flash2` | flash-attn 2                                                          | CUDA       |
| `eager`  | softmax written out; also returns the weights                         | everywhere |

Dimensions: N tiles, P patches, H heads, d width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_utils import AttentionInterface

from internvl_lab.errors import ConfigError
from internvl_lab.models.attention.kernels import attend_flash2_tiles, why_not_here, why_not_installed
from internvl_lab.models.attention.precision import half_states, kernel_inputs


def tile_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend in both directions inside each tile.

    Args:
        module: the attention layer.
        query, key, value: (N, H, 1+P, d).
        attention_mask: always None; part of transformers' signature.
        scaling: factor of the scores; None = 1 / sqrt(d).
        dropout: probability of dropping an attention weight.
        kwargs: further arguments of transformers' signature, without effect.
    Returns:
        (N, 1+P, H, d) and None (no attention weights).
    """
    with kernel_inputs(query, key, value) as (q, k, v):
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling)
        return attended.transpose(1, 2).to(value.dtype), None


def tile_attention_flash2(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Do the same with flash-attn 2; arguments as in `tile_attention`: (N, H, 1+P, d) -> (N, 1+P, H, d).

    Raises:
        ConfigError: it cannot run on the states' device.
    """
    _refuse("flash2", why_not_here("flash2", query.device.type, half=True))
    q, k, v = (state.transpose(1, 2) for state in half_states(query, key, value))
    return attend_flash2_tiles(q, k, v, scaling).to(value.dtype), None


def tile_attention_eager(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Write the softmax out; arguments as in `tile_attention`.

    Returns:
        (N, 1+P, H, d) and the weights (N, H, 1+P, 1+P) that made it.
    """
    with kernel_inputs(query, key, value) as (q, k, v):
        scores = q @ k.transpose(2, 3) * (1 / math.sqrt(q.shape[-1]) if scaling is None else scaling)
        weights = F.dropout(scores.float().softmax(-1).to(v.dtype), dropout)
        return (weights @ v).transpose(1, 2).to(value.dtype), weights


@dataclass(frozen=True)
class TileBackend:
    """Name one way to attend inside tiles."""

    registered_name: str
    """Name in transformers' registry; one with 'flash' in it would trigger foreign checks."""
    function: Callable[..., Any]
    kernel: str | None = None
    """Key of `kernels.KERNELS`; None = runs everywhere."""


TILE_BACKENDS = {
    "sdpa": TileBackend("internvl_tiles", tile_attention),
    "flash2": TileBackend("internvl_tiles_fa2", tile_attention_flash2, "flash2"),
    "eager": TileBackend("internvl_tiles_eager", tile_attention_eager),
}
"""All backends by name; `auto` is the first."""

for _backend in TILE_BACKENDS.values():
    AttentionInterface.register(_backend.registered_name, _backend.function)


def resolve_tiles(name: str) -> TileBackend:
    """Find a backend by the name in `model.vision_attention`.

    Raises:
        ConfigError: an unknown name, or a package is not installed.
    """
    chosen = next(iter(TILE_BACKENDS)) if name == "auto" else name
    if chosen not in TILE_BACKENDS:
        raise ConfigError(f"model.vision_attention={name!r} is unknown; choose one of auto, {', '.join(TILE_BACKENDS)}")
    backend = TILE_BACKENDS[chosen]
    if backend.kernel is not None:
        _refuse(name, why_not_installed(backend.kernel))
    return backend


def check_tiles(name: str, device_type: str, half: bool) -> None:
    """Refuse a backend that cannot run, before a model is built.

    Args:
        name: as in `model.vision_attention`.
        device_type: `cpu`, `cuda`, ...
        half: whether the encoder computes in bf16 or fp16.
    Raises:
        ConfigError: one sentence with what to install or to choose.
    """
    kernel = resolve_tiles(name).kernel
    if kernel is not None:
        _refuse(name, why_not_here(kernel, device_type, half))


def _refuse(name: str, reason: str | None) -> None:
    if reason is not None:
        raise ConfigError(f"model.vision_attention={name} is not available: {reason}")
