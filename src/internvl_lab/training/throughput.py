"""Cumulative tokens, samples, tiles and FLOPs, which any metric can be drawn over, and their rates."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import lightning as L
import torch

from internvl_lab.models.devices import find_device
from internvl_lab.tracking import CUMULATIVE
from internvl_lab.training.module import as_step_module

log = logging.getLogger(__name__)


@cache
def device_peak(device_type: str, half: bool) -> float | None:
    """Return the peak FLOP/s of the running device, of which MFU is a share; None where it is unknown, said once.

    Args:
        device_type: `cpu`, `cuda`, ...
        half: whether it computes in bf16 or fp16; the table of devices holds no other peaks.
    """
    reason = f"no peak is known for {device_type}"
    if device_type == "cuda" and half:
        name = torch.cuda.get_device_name()
        if (known := find_device(name)) is not None:
            return known.peak_bf16_flops
        reason = f"models/devices.py does not know {name}"
    elif device_type == "cuda":
        reason = "the peaks of models/devices.py are those of half precision"
    log.info("perf/mfu is not logged: %s", reason)
    return None


class ThroughputMonitor(L.Callback):
    """Count over all ranks, and measure the time of an optimizer step.

    Logs `tokens`, `samples`, `tiles`, `flops` (totals over the recipe), `perf/tokens_per_s`,
    `perf/tiles_per_s`, `perf/step_s`, `perf/data_wait_s` (time this rank waited for packs) and, with
    `peak_flops`, `perf/mfu`. Validation is not counted as step time.

    Args:
        start: totals of the stages before.
        peak_flops: FLOP/s of one device at the precision used; None = no MFU.
    """

    def __init__(self, start: Mapping[str, float] | None = None, peak_flops: float | None = None) -> None:
        self.totals: dict[str, float] = {name: (start or {}).get(name, 0) for name in CUMULATIVE}
        self.peak_flops = peak_flops
        self._step_start = self._batch_end = 0.0
        self._waited_s = 0.0
        self._pause_start = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._step_start = self._batch_end = time.perf_counter()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Add the time since the batch before."""
        self._waited_s += time.perf_counter() - self._batch_end

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the step's counts and rates to the metrics."""
        now = self._batch_end = time.perf_counter()
        module = as_step_module(pl_module)
        if not module.ends_step(batch_idx) or module.last_step is None:
            return
        counts = module.last_step.counts
        for name in CUMULATIVE:
            self.totals[name] += counts[name] if name == "flops" else int(counts[name])
        elapsed = max(now - self._step_start, 1e-9)
        module.metrics.update(self.totals)
        module.metrics.update(
            {
                "perf/tokens_per_s": counts["tokens"] / elapsed,
                "perf/tiles_per_s": counts["tiles"] / elapsed,
                "perf/step_s": elapsed,
                "perf/data_wait_s": self._waited_s,
            }
        )
        if self.peak_flops:
            module.metrics["perf/mfu"] = counts["flops"] / (elapsed * self.peak_flops * trainer.world_size)
        self._step_start, self._waited_s = now, 0.0

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        self._pause_start = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go on as if validation had taken no time."""
        pause = time.perf_counter() - self._pause_start
        self._step_start += pause
        self._batch_end += pause

    def state_dict(self) -> dict[str, Any]:
        """Return the totals, which a resumed run continues."""
        return dict(self.totals)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the totals of a checkpoint."""
        self.totals = {name: state_dict[name] for name in CUMULATIVE}
