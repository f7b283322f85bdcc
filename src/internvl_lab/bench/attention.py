"""Packed attention alone: the backend that `auto` chooses here against every other that runs here.

Forward and backward of one layer over one pack, the same queries, keys and values. `padded` is what a batch without
packing would cost: the samples in rows of the longest, one causal SDPA. Ratios are ours over the peer's time, below 1 =
ours is faster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from internvl_lab.bench.report import Report, check_same_loss
from internvl_lab.bench.timing import Reading, Run, clock_for, interleave, median_peak_mib, spread
from internvl_lab.errors import ConfigError
from internvl_lab.models.attention import BACKENDS, Backend, packed_attention, resolve
from internvl_lab.models.attention.kernels import why_not_here

RELATIVE_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
"""Largest relative difference of the variants' sums of squares."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_CALLS = 5
"""Forward and backward passes a reading, because one takes milliseconds."""


@dataclass(frozen=True)
class AttentionSetting:
    """Describe the pack and the layer."""

    tokens: int = 2048
    samples: int = 16
    heads: int = 4
    key_value_heads: int = 2
    head_size: int = 64
    dtype: str = "float32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse what leaves nothing to measure."""
        if self.dtype not in _DTYPES:
            raise ConfigError(f"dtype={self.dtype!r} must be one of {', '.join(_DTYPES)}")
        if not 1 <= self.samples <= self.tokens:
            raise ConfigError("samples must lie between 1 and the number of tokens")
        if self.key_value_heads < 1 or self.head_size < 1 or self.heads % self.key_value_heads:
            raise ConfigError("heads must be a multiple of key-value heads, and heads have a size")

    def lengths(self, seed: int) -> list[int]:
        """Cut the pack into samples of random lengths, none empty."""
        cuts = np.random.default_rng(seed).choice(self.tokens - 1, self.samples - 1, replace=False) + 1
        return [int(length) for length in np.diff([0, *np.sort(cuts), self.tokens])]


def bench_attention(setting: AttentionSetting, repeats: int = 3, seed: int = 0) -> Report:
    """Measure all variants `repeats` times, in turns.

    Raises:
        ConfigError: impossible sizes.
        InternVLLabError: the variants' outputs differ, so that there is nothing to compare.
    """
    clock = clock_for(setting.device)
    with clock.session():
        runs = build_runs(setting, seed)
        device = clock.describe()
        readings = interleave(runs, repeats, clock, runs if setting.device == "cuda" else None)
    values = {name: of[0].value for name, of in readings.items()}
    check_same_loss(values, RELATIVE_TOLERANCE[setting.dtype] * abs(values["ours"]))
    figures = {name: _figures(of) for name, of in readings.items()}
    ours = figures.pop("ours")
    ratios = {name: ours["time_s"]["median"] / values["time_s"]["median"] for name, values in figures.items()}
    described = asdict(setting) | {"ours": _auto(setting).name, "calls": _CALLS, "repeats": repeats, "seed": seed}
    return Report(device, ours, figures, ratios, described, clock.name)


def build_runs(setting: AttentionSetting, seed: int = 0) -> dict[str, Run]:
    """Build all variants over the same tensors; each returns the sum of squares of its output."""
    lengths = setting.lengths(seed)
    generator = torch.Generator().manual_seed(seed)

    def states(heads: int) -> Tensor:
        """Draw (1, heads, T, d) states that want a gradient."""
        drawn = torch.randn(1, heads, setting.tokens, setting.head_size, generator=generator)
        return drawn.to(setting.device, _DTYPES[setting.dtype]).requires_grad_()

    tensors = [states(setting.heads), states(setting.key_value_heads), states(setting.key_value_heads)]
    auto = _auto(setting)
    others = [backend for backend in BACKENDS.values() if backend.name != auto.name and _runs(backend, setting)]
    pack = torch.tensor([0, *lengths], device=setting.device).cumsum(0).int(), max(lengths)
    attend: dict[str, Callable[..., Tensor]] = {"ours": partial(_packed, auto.lay_out, *pack)}
    attend |= {backend.name: partial(_packed, backend.lay_out, *pack) for backend in others}
    attend["padded"] = partial(_padded, lengths)
    return {name: partial(_forward_backward, run, tensors) for name, run in attend.items()}


def _auto(setting: AttentionSetting) -> Backend:
    """Return what `auto` chooses on the setting's device."""
    return resolve("auto", setting.device, setting.dtype == "bfloat16")


def _runs(backend: Backend, setting: AttentionSetting) -> bool:
    """Say whether a backend runs on the setting's device."""
    return not backend.needs_kernel or why_not_here(backend.name, setting.device, setting.dtype == "bfloat16") is None


def _packed(
    lay_out: Callable[[Tensor, int], dict[str, Any]],
    boundaries: Tensor,
    longest: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
) -> Tensor:
    """Attend with one of our backends: boundaries (S + 1,), (1, H, T, d) states -> (1, T, H, d)."""
    layer = nn.Module()
    layer.num_key_value_groups = query.shape[1] // key.shape[1]  # type: ignore[assignment]
    keywords = {"attention_mask": None} | lay_out(boundaries, longest)
    return packed_attention(layer, query, key, value, **keywords)[0]


def _padded(lengths: list[int], query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend in rows of the longest sample: (1, H, T, d) states -> (1, T, H, d)."""

    def rows(state: Tensor) -> Tensor:
        """Put each sample into a row of its own: (1, H, T, d) -> (S, H, longest, d)."""
        pieces = state[0].split(lengths, dim=1)
        return torch.stack([F.pad(piece, (0, 0, 0, max(lengths) - piece.shape[1])) for piece in pieces])

    grouped = query.shape[1] != key.shape[1]
    out = F.scaled_dot_product_attention(rows(query), rows(key), rows(value), is_causal=True, enable_gqa=grouped)
    kept = [row[:, :length] for row, length in zip(out, lengths, strict=True)]
    return torch.cat(kept, dim=1).transpose(0, 1)[None]


def _forward_backward(attend: Callable[..., Tensor], states: list[Tensor]) -> Tensor:
    for _ in range(_CALLS):
        loss = attend(*states).float().square().sum()
        loss.backward()
        for state in states:
            state.grad = None
    return loss.detach()


def _figures(readings: list[Reading]) -> dict[str, Any]:
    return {"time_s": spread([reading.time_s for reading in readings]), "extra_peak_mib": median_peak_mib(readings)}
