"""Kernels from other packages: what each needs, and its arguments in the order that it wants them.

| kernel         | package                    | device (compute capability) | gives back      |
|----------------|----------------------------|-----------------------------|-----------------|
| `flash2`       | flash-attn 2, built        | CUDA, 8.0 or newer          | out             |
| `flash4`       | flash-attn-4, plain wheel  | CUDA, 9.x to 12.x           | (out, lse)      |
| `torch_varlen` | torch 2.11 or newer        | CUDA, 8.0 or newer          | out             |

All take half precision, boundaries as int32 on the device and the longest sample as a plain int (a tensor would cost a
device sync in every layer), and read grouped key-value heads as they are, without repeating them.
Dimensions: T tokens, S samples, H query heads, H_kv key-value heads, d width of a head, N tiles, P patches.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from internvl_lab.errors import ConfigError

HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Kernel:
    """Say where a kernel comes from and what it runs on."""

    module: str
    function: str
    install: str
    """What to do where `module` cannot be imported."""
    capabilities: range
    """Major compute capabilities of the devices it runs on."""


KERNELS = {
    "flash2": Kernel(
        "flash_attn",
        "flash_attn_varlen_func",
        "pip install 'internvl-lab[flash]' builds it against the machine's CUDA",
        range(8, 100),
    ),
    "flash4": Kernel("flash_attn.cute", "flash_attn_varlen_func", "pip install flash-attn-4", range(9, 13)),
    "torch_varlen": Kernel("torch.nn.attention.varlen", "varlen_attn", "it comes with torch 2.11", range(8, 100)),
}


@cache
def load_function(module: str, function: str) -> Callable[..., Any] | str:
    """Import a kernel; where that fails, return why."""
    try:
        return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]
    except ModuleNotFoundError as error:
        return f"module {error.name} is not installed"
    except Exception as error:  # a build for another torch fails with ImportError, OSError, RuntimeError, ...
        return f"{module} cannot be imported: {' '.join(str(error).split())}"


def why_not_installed(name: str) -> str | None:
    """Say why a kernel cannot be imported and what to do; None where it can."""
    kernel = KERNELS[name]
    loaded = load_function(kernel.module, kernel.function)
    return f"{loaded}; {kernel.install}" if isinstance(loaded, str) else None


def why_not_here(name: str, device_type: str, half: bool) -> str | None:
    """Say why a kernel cannot run; None where it can.

    Args:
        name: key of `KERNELS`.
        device_type: `cpu`, `cuda`, ...
        half: whether queries, keys and values come in bf16 or fp16.
    """
    if (missing := why_not_installed(name)) is not None:
        return missing
    if device_type != "cuda" or not torch.cuda.is_available():
        return f"it needs a CUDA device, and this is {device_type}"
    major, minor = torch.cuda.get_device_capability()
    wanted = KERNELS[name].capabilities
    if major not in wanted:
        return f"it does not run on devices of compute capability {major}.{minor}"
    if not half:
        return "it needs half precision: trainer.precision=bf16-mixed or model.dtype=bfloat16"
    return None


def kernel_function(name: str) -> Callable[..., Any]:
    """Return a kernel's function.

    Raises:
        ConfigError: it is not installed.
    """
    kernel = KERNELS[name]
    loaded = load_function(kernel.module, kernel.function)
    if isinstance(loaded, str):
        raise ConfigError(f"attention {name} is not available: {loaded}; {kernel.install}")
    return loaded


def attend_flash2(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, max_seqlen: int, scaling: float | None
) -> Tensor:
    """Run flash-attn 2 inside samples, causally.

    Args:
        query: (T, H, d) half precision.
        key, value: (T, H_kv, d).
        cu_seqlens: (S + 1,) int32 on the same device.
        max_seqlen: longest sample.
        scaling: factor of the scores; None = 1 / sqrt(d).
    Returns:
        (T, H, d).
    """
    out: Tensor = kernel_function("flash2")(
        query,
        key,
        value,
        cu_seqlens_q=cu_seqlens,
        cu_seqlens_k=cu_seqlens,
        max_seqlen_q=max_seqlen,
        max_seqlen_k=max_seqlen,
        softmax_scale=scaling,
        causal=True,
    )
    return out


def attend_flash4(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, max_seqlen: int, scaling: float | None
) -> Tensor:
    """Run flash-attn 4 inside samples, causally; arguments and result as in `attend_flash2`: (T, H, d)."""
    function = kernel_function("flash4")
    longest = {"max_seqlen_q": max_seqlen, "max_seqlen_k": max_seqlen}
    out = function(
        query,
        key,
        value,
        cu_seqlens_q=cu_seqlens,
        cu_seqlens_k=cu_seqlens,
        softmax_scale=scaling,
        causal=True,
        **_accepted(function, longest),  # its first versions read them from cu_seqlens
    )
    result: Tensor = out[0] if isinstance(out, tuple) else out
    return result


def attend_torch_varlen(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, max_seqlen: int, scaling: float | None
) -> Tensor:
    """Run torch's own kernel inside samples, causally; arguments and result as in `attend_flash2`: (T, H, d)."""
    function = kernel_function("torch_varlen")
    grouped = {"enable_gqa": query.shape[1] != key.shape[1]}
    out: Tensor = function(
        query,
        key,
        value,
        cu_seqlens,
        cu_seqlens,
        max_seqlen,
        max_seqlen,
        scale=scaling,
        window_size=(-1, 0),  # causal
        **_accepted(function, grouped),  # torch 2.11 has no such switch and reads fewer heads as they are
    )
    return out


def attend_flash2_tiles(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Run flash-attn 2 in both directions inside tiles.

    Args:
        query, key, value: (N, 1+P, H, d) half precision.
        scaling: factor of the scores; None = 1 / sqrt(d).
    Returns:
        (N, 1+P, H, d).
    Raises:
        ConfigError: flash-attn is not installed.
    """
    kernel_function("flash2")
    function = load_function("flash_attn", "flash_attn_func")
    if isinstance(function, str):
        raise ConfigError(f"attention flash2 is not available: {function}; {KERNELS['flash2'].install}")
    out: Tensor = function(query, key, value, softmax_scale=scaling, causal=False)
    return out


def _accepted(function: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Keep the options that a function of this version knows."""
    known = _parameters(function)
    return {name: value for name, value in options.items() if name in known}


@cache
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)
