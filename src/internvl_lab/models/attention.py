"""Packed attention backends: samples of one pack never see each other.

transformers' own inference of packing leaks silently between samples whenever `use_cache` is left at its
default, so the boundaries go down explicitly: `InternVL.forward` lays the pack out once
(`Backend.lay_out`), and the layout reaches the registered function as the extra keyword `pack`.

| backend     | how                                                   | where            |
|-------------|-------------------------------------------------------|------------------|
| `sdpa_docs` | one causal SDPA a sample; nothing materialised        | everywhere       |
| `dense`     | one SDPA under a block-diagonal mask, O(T^2) memory   | reference        |

On CPU the loop costs 5.8 ms a layer (forward and backward, T = 2k in 27 samples, 4 heads of 32), padding the
samples into equal rows 6.9 to 10 ms, the dense mask 59 ms. A call without `pack` (generation with a KV cache) is
plain SDPA with the mask that the caller gives.

Tiles are dense and need no packing; `tile_attention` is the encoder's function. Both run bf16 in fp32 on CPUs: the
backward of torch's bf16 kernel is seven times slower there (38 against 6.6 ms for 64 tiles of 65 tokens, torch 2.13),
which would undo what bf16 products gain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from internvl_lab.errors import ConfigError


@dataclass(frozen=True)
class PackLayout:
    """Say where the samples of a pack lie."""

    cu_seqlens: Tensor
    """(S + 1,) int32, start of each sample and the end of the last."""
    max_seqlen: int
    lengths: list[int]
    """S lengths on the host; empty for backends that do not need them."""


@dataclass(frozen=True)
class Backend:
    """Describe one way to attend inside samples."""

    name: str
    lay_out: Callable[[Tensor, int], dict[str, Any]]
    """(cu_seqlens (S + 1,), max_seqlen) -> keywords of the language model, made once per forward."""

    @property
    def registered_name(self) -> str:
        """Return the name in transformers' registry; a name with 'flash' in it would trigger foreign checks."""
        return f"internvl_{self.name}"


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    pack: PackLayout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend causally inside each sample of a pack; without `pack`, run plain SDPA with the given mask.

    Args:
        module: the attention layer.
        query: (1, H, T, d).
        key, value: (1, H_kv, T, d); H is a multiple of H_kv.
        attention_mask: ignored when `pack` is given.
        scaling: factor of the scores; None = 1 / sqrt(d).
        dropout: probability of dropping an attention weight.
        pack: boundaries of the samples.
        kwargs: passed on to transformers' SDPA when there is no pack.
    Returns:
        (1, T, H, d) and None (no attention weights).
    """
    if pack is None:
        kwargs.pop("is_causal", None)
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    grouped = query.shape[1] != key.shape[1]
    with _kernel_inputs(query, key, value) as states:
        # split, not slicing: the backward of n slices would add n zero-padded gradients of full length
        pieces = zip(*(state.split(pack.lengths, dim=2) for state in states), strict=True)
        attended = [
            F.scaled_dot_product_attention(
                q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped
            )
            for q, k, v in pieces
        ]
        return torch.cat(attended, dim=2).transpose(1, 2).to(value.dtype), None


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
    with _kernel_inputs(query, key, value) as (q, k, v):
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling)
        return attended.transpose(1, 2).to(value.dtype), None


@contextmanager
def _kernel_inputs(*states: Tensor) -> Iterator[Sequence[Tensor]]:
    """Give the states in the dtype that the kernel is fast in, with autocast off so that it stays so."""
    device = states[0].device.type
    if device != "cpu" or (states[-1].dtype == torch.float32 and not torch.is_autocast_enabled("cpu")):
        yield states
        return
    with torch.autocast("cpu", enabled=False):
        yield [state.float() for state in states]


def block_diagonal_mask(cu_seqlens: Tensor, num_tokens: int) -> Tensor:
    """Build the causal mask of a pack: (1, 1, T, T) bool, true where query may look at key.

    Args:
        cu_seqlens: (S + 1,) boundaries.
        num_tokens: T.
    """
    positions = torch.arange(num_tokens, device=cu_seqlens.device)
    sample = torch.bucketize(positions, cu_seqlens[1:], right=True)
    mask = (sample[:, None] == sample[None, :]) & (positions[:, None] >= positions[None, :])
    return mask[None, None]


def _lay_out_docs(cu_seqlens: Tensor, max_seqlen: int) -> dict[str, Any]:
    """Give the lengths to the loop, and an empty 4D mask: transformers hands any 4D mask on and builds none."""
    lengths = cu_seqlens.diff().tolist()
    empty = torch.empty(1, 1, 0, 0, dtype=torch.bool, device=cu_seqlens.device)
    return {"pack": PackLayout(cu_seqlens, max_seqlen, lengths), "attention_mask": empty}


def _lay_out_dense(cu_seqlens: Tensor, max_seqlen: int) -> dict[str, Any]:
    """Give one mask to all layers."""
    return {"attention_mask": block_diagonal_mask(cu_seqlens, int(cu_seqlens[-1]))}


BACKENDS = {
    backend.name: backend for backend in (Backend("sdpa_docs", _lay_out_docs), Backend("dense", _lay_out_dense))
}
"""All backends by name; `auto` is the first."""

TILE_ATTENTION = "internvl_tiles"
"""Registered name of the encoder's attention."""

for _backend in BACKENDS.values():
    AttentionInterface.register(_backend.registered_name, packed_attention)
    AttentionMaskInterface.register(_backend.registered_name, sdpa_mask)
AttentionInterface.register(TILE_ATTENTION, tile_attention)


def resolve(name: str) -> Backend:
    """Find a backend by the name in `model.attention`; `auto` takes the first.

    Raises:
        ConfigError: an unknown name; the message lists the choices.
    """
    if name == "auto":
        return next(iter(BACKENDS.values()))
    if name not in BACKENDS:
        raise ConfigError(f"model.attention={name!r} is unknown; choose one of auto, {', '.join(BACKENDS)}")
    return BACKENDS[name]
