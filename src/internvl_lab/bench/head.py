"""The loss head alone: logits on supervised rows against logits everywhere, time and memory.

Forward and backward to hidden states and weight, of the same rows and labels. Ratios are ours over naive, below 1 =
ours is better. The weight's gradient is as large for both (`weight_gradient_mib` in the setting) and part of both
peaks, so the ratio of memory falls with more rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from internvl_lab.bench.report import Report, check_same_loss
from internvl_lab.bench.timing import Reading, Run, clock_for, interleave, median_peak_mib, spread
from internvl_lab.config import ModelConfig
from internvl_lab.constants import IGNORE_INDEX
from internvl_lab.errors import ConfigError
from internvl_lab.models.loss_head import supervised_losses

LOSS_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-3}
"""Largest difference of the mean losses (about 12); products of other shapes may round bf16 logits differently."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class HeadSetting:
    """Describe the head and the rows it sees; the defaults are the 1B model's head."""

    rows: int = 4096
    """Tokens of the pack: a quarter of the report's; at 512 the weight's gradient is most of both peaks."""
    vocab_size: int = 151674
    hidden_size: int = 896
    supervised_share: float = 0.15
    dtype: str = "float32"
    logits_byte_budget: int = ModelConfig.logits_byte_budget
    """Most bytes of fp32 logits that ours makes at once."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse what leaves nothing to measure."""
        if self.dtype not in _DTYPES:
            raise ConfigError(f"dtype={self.dtype!r} must be one of {', '.join(_DTYPES)}")
        if self.rows < 1 or self.vocab_size < 1 or not 0 < self.supervised_share <= 1:
            raise ConfigError("rows and vocabulary must be at least 1, the supervised share in (0, 1]")


def bench_head(setting: HeadSetting, repeats: int = 3, seed: int = 0) -> Report:
    """Measure both heads `repeats` times, in turns.

    Raises:
        InternVLLabError: their losses differ, so that there is nothing to compare.
    """
    clock = clock_for(setting.device)
    with clock.session():
        runs = build_runs(setting, seed)
        device = clock.describe()
        readings = interleave(runs, repeats, clock, runs if setting.device == "cuda" else None)
    check_same_loss({name: of[0].value for name, of in readings.items()}, LOSS_TOLERANCE[setting.dtype])
    figures = {name: _figures(of) for name, of in readings.items()}
    ours, naive = figures["ours"], figures["naive"]
    ratios = {"naive_time": ours["time_s"]["median"] / naive["time_s"]["median"]}
    if ours["extra_peak_mib"] is not None and naive["extra_peak_mib"]:
        ratios["naive_memory"] = ours["extra_peak_mib"] / naive["extra_peak_mib"]
    weight_mib = setting.vocab_size * setting.hidden_size * _DTYPES[setting.dtype].itemsize / 2**20
    described = asdict(setting) | {"weight_gradient_mib": round(weight_mib, 1), "repeats": repeats, "seed": seed}
    return Report(device, ours, {"naive": naive}, ratios, described, clock.name)


def build_runs(setting: HeadSetting, seed: int = 0) -> dict[str, Run]:
    """Build both variants over the same tensors; each runs forward and backward and returns its mean loss."""
    generator = torch.Generator().manual_seed(seed)
    dtype = _DTYPES[setting.dtype]
    head = nn.Linear(setting.hidden_size, setting.vocab_size, bias=False, dtype=dtype)
    nn.init.normal_(head.weight, 0.0, 0.02, generator=generator)
    head.to(setting.device)
    hidden = torch.randn(1, setting.rows, setting.hidden_size, generator=generator)
    hidden = hidden.to(setting.device, dtype).requires_grad_()
    labels = torch.randint(0, setting.vocab_size, (1, setting.rows), generator=generator)
    num_targets = max(1, round(setting.rows * setting.supervised_share))
    labels[0, torch.randperm(setting.rows, generator=generator)[num_targets:]] = IGNORE_INDEX
    labels = labels.to(setting.device)
    losses: dict[str, Callable[..., Tensor]] = {
        "ours": partial(supervised_mean, byte_budget=setting.logits_byte_budget),
        "naive": naive_mean,
    }
    return {name: partial(_forward_backward, loss_of, head, hidden, labels) for name, loss_of in losses.items()}


def supervised_mean(head: nn.Linear, hidden: Tensor, labels: Tensor, byte_budget: int) -> Tensor:
    """Return () the mean loss through our head; hidden (1, T, D), labels (1, T)."""
    return supervised_losses(head, hidden, labels, head.out_features, byte_budget).losses.mean()


def naive_mean(head: nn.Linear, hidden: Tensor, labels: Tensor) -> Tensor:
    """Return () the mean loss through fp32 logits of all rows, transformers' way; hidden (1, T, D), labels (1, T)."""
    return F.cross_entropy(head(hidden).float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX)


def _forward_backward(loss_of: Callable[..., Tensor], head: nn.Linear, hidden: Tensor, labels: Tensor) -> Tensor:
    loss = loss_of(head, hidden, labels)
    loss.backward()
    head.weight.grad = hidden.grad = None
    return loss.detach()


def _figures(readings: list[Reading]) -> dict[str, Any]:
    return {
        "time_s": spread([reading.time_s for reading in readings]),
        "extra_peak_mib": median_peak_mib(readings),
        "loss": readings[0].value,
    }
