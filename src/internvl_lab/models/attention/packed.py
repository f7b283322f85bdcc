"""Packed attention backends: samples of one pack never see each other.

transformers' own inference of packing leaks silently between samples whenever `use_cache` is left at its
default, so the boundaries go down explicitly: `InternVL.forward` lays the pack out once
(`Backend.lay_out`), and the layout reaches the registered function as the extra keyword `pack`.

| backend        | how                                                   | where            |
|----------------|-------------------------------------------------------|------------------|
| `flash2`       | one varlen kernel, flash-attn 2                       | CUDA             |
| `flash4`       | one varlen kernel, flash-attn 4                       | CUDA, Hopper on  |
| `torch_varlen` | one varlen kernel, torch's own                        | CUDA             |
| `sdpa_docs`    | one causal SDPA a sample; nothing materialised        | everywhere       |
| `dense`        | one SDPA under a block-diagonal mask, O(T^2) memory   | reference        |

`auto` is the first of the table that runs: on a CPU always `sdpa_docs`. What a kernel needs stands in `kernels`.
On CPU the loop costs 5.8 ms a layer (forward and backward, T = 2k in 27 samples, 4 heads of 32), padding the
samples into equal rows 6.9 to 10 ms, the dense mask 59 ms. A call without `pack` (generation with a KV cache) is
plain SDPA with the mask that the caller gives.

SDPA runs bf16 in fp32 on CPUs, here and inside tiles: the backward of torch's bf16 kernel is seven times slower there
(38 against 6.6 ms for 64 tiles of 65 tokens, torch 2.13), which would undo what bf16 products gain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from internvl_lab.errors import ConfigError
from internvl_lab.models.attention.kernels import (
    HALF,
    attend_flash2,
    attend_flash4,
    attend_torch_varlen,
    why_not_here,
    why_not_installed,
)
from internvl_lab.models.attention.precision import half_states, kernel_inputs

PACKED_ATTENTION = "internvl_packed"
"""Registered name of the language model's attention; a name with 'flash' in it would trigger foreign checks."""

VarlenKernel = Callable[[Tensor, Tensor, Tensor, Tensor, int, float | None], Tensor]
"""(query (T, H, d), key and value (T, H_kv, d), cu_seqlens (S + 1,), longest sample, scaling) -> (T, H, d)."""


@dataclass(frozen=True)
class PackLayout:
    """Say where the samples of a pack lie."""

    cu_seqlens: Tensor
    """(S + 1,) int32, start of each sample and the end of the last."""
    max_seqlen: int
    lengths: list[int]
    """S lengths on the host; empty for kernels, which do not need them."""
    kernel: VarlenKernel | None = None
    """Attends to the whole pack at once; None = one SDPA a sample."""


@dataclass(frozen=True)
class Backend:
    """Describe one way to attend inside samples."""

    name: str
    lay_out: Callable[[Tensor, int], dict[str, Any]]
    """(cu_seqlens (S + 1,), max_seqlen) -> keywords of the language model, made once per forward."""
    needs_kernel: bool = False
    """Whether it is one of `kernels.KERNELS`; the others run everywhere."""


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
    Raises:
        ConfigError: dropout with a kernel, which has none.
    """
    if pack is None:
        kwargs.pop("is_causal", None)
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if pack.kernel is not None:
        if dropout:
            raise ConfigError(f"attention dropout {dropout} needs model.attention=sdpa_docs; the kernels have none")
        q, k, v = (state[0].transpose(0, 1) for state in half_states(query, key, value))
        out = pack.kernel(q, k, v, pack.cu_seqlens, pack.max_seqlen, scaling)
        return out[None].to(value.dtype), None
    return _attend_docs(query, key, value, scaling, dropout, pack), None


# A loop over lengths: compiled, every pack would be another graph.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attend_docs(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, dropout: float, pack: PackLayout
) -> Tensor:
    """Run one causal SDPA a sample: (1, H, T, d) -> (1, T, H, d)."""
    grouped, lengths = query.shape[1] != key.shape[1], pack.lengths
    with kernel_inputs(query, key, value) as states:
        # split, not slicing: the backward of n slices would add n zero-padded gradients of full length
        pieces = zip(*(state.split(lengths, dim=2) for state in states), strict=True)
        attended = [
            F.scaled_dot_product_attention(
                q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped
            )
            for q, k, v in pieces
        ]
        return torch.cat(attended, dim=2).transpose(1, 2).to(value.dtype)


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


def _layout_keywords(layout: PackLayout) -> dict[str, Any]:
    """Add an empty 4D mask: transformers hands any 4D mask on and builds none."""
    empty = torch.empty(1, 1, 0, 0, dtype=torch.bool, device=layout.cu_seqlens.device)
    return {"pack": layout, "attention_mask": empty}


def _lay_out_docs(cu_seqlens: Tensor, max_seqlen: int) -> dict[str, Any]:
    """Give the lengths to the loop."""
    return _layout_keywords(PackLayout(cu_seqlens, max_seqlen, cu_seqlens.diff().tolist()))


def _lay_out_dense(cu_seqlens: Tensor, max_seqlen: int) -> dict[str, Any]:
    """Give one mask to all layers."""
    return {"attention_mask": block_diagonal_mask(cu_seqlens, int(cu_seqlens[-1]))}


def _kernel_backend(name: str, kernel: VarlenKernel) -> Backend:
    """Describe a kernel that attends to a whole pack."""

    def lay_out(cu_seqlens: Tensor, max_seqlen: int) -> dict[str, Any]:
        """Give the boundaries in the type the kernels take."""
        return _layout_keywords(PackLayout(cu_seqlens.to(torch.int32), int(max_seqlen), [], kernel))

    return Backend(name, lay_out, needs_kernel=True)


BACKENDS = {
    backend.name: backend
    for backend in (
        _kernel_backend("flash2", attend_flash2),
        _kernel_backend("flash4", attend_flash4),
        _kernel_backend("torch_varlen", attend_torch_varlen),
        Backend("sdpa_docs", _lay_out_docs),
        Backend("dense", _lay_out_dense),
    )
}
"""All backends by name; `auto` is the first that runs."""

AttentionInterface.register(PACKED_ATTENTION, packed_attention)
AttentionMaskInterface.register(PACKED_ATTENTION, sdpa_mask)


def is_half(dtype: torch.dtype, device_type: str) -> bool:
    """Say whether a model of this dtype computes in half precision, by itself or under autocast."""
    return dtype in HALF or (
        torch.amp.is_autocast_available(device_type)
        and torch.is_autocast_enabled(device_type)
        and torch.get_autocast_dtype(device_type) in HALF
    )


def check_installed(name: str) -> None:
    """Refuse an unknown backend, or one whose package is missing, before a model is built.

    Raises:
        ConfigError: the message lists the choices, or says what to install.
    """
    if name == "auto":
        return
    if name not in BACKENDS:
        raise ConfigError(f"model.attention={name!r} is unknown; choose one of auto, {', '.join(BACKENDS)}")
    if BACKENDS[name].needs_kernel:
        _refuse(name, why_not_installed(name))


def resolve(name: str, device_type: str = "cpu", half: bool = False) -> Backend:
    """Find a backend by the name in `model.attention`; `auto` takes the first that runs.

    Args:
        name: a key of `BACKENDS`, or `auto`.
        device_type: where the model runs: `cpu`, `cuda`, ...
        half: whether it computes in bf16 or fp16.
    Raises:
        ConfigError: an unknown name, or a backend that cannot run; the message says what to install or to choose.
    """
    check_installed(name)
    if name != "auto":
        if BACKENDS[name].needs_kernel:
            _refuse(name, why_not_here(name, device_type, half))
        return BACKENDS[name]
    if device_type == "cuda" and half:
        for backend in BACKENDS.values():
            if backend.needs_kernel and why_not_here(backend.name, device_type, half) is None:
                return backend
    return BACKENDS["sdpa_docs"]


def _refuse(name: str, reason: str | None) -> None:
    if reason is not None:
        raise ConfigError(f"model.attention={name} is not available: {reason}")
