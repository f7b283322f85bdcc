"""The Lightning settings that exact training relies on, and the callbacks in the order that it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L

from internvl_lab.config import CallbacksConfig, PackingConfig, StageConfig
from internvl_lab.errors import ConfigError
from internvl_lab.training.checkpointing import StepCheckpoint
from internvl_lab.training.freezing import StageFreezing
from internvl_lab.training.journal import Journal
from internvl_lab.training.metrics import MetricsWriter
from internvl_lab.training.pack_monitor import PackMonitor
from internvl_lab.training.progress import StageProgressBar
from internvl_lab.training.source_loss import SourceLossMonitor
from internvl_lab.training.stop import StopOnRequest, StopSignals
from internvl_lab.training.throughput import ThroughputMonitor
from internvl_lab.training.watchdog import Watchdog


def accumulation_of(packs_per_step: int, world_size: int) -> int:
    """Return the packs of one rank in an optimizer step.

    Raises:
        ConfigError: the packs of a step cannot be shared out evenly.
    """
    if packs_per_step % world_size:
        raise ConfigError(
            f"packing.packs_per_step={packs_per_step} cannot be shared evenly by {world_size} processes; "
            f"use a multiple of {world_size}"
        )
    return packs_per_step // world_size


def loop_settings(stage: StageConfig, packs_per_step: int, world_size: int) -> dict[str, Any]:
    """Return the arguments of `lightning.Trainer` that a stage fixes.

    One epoch = the stage; Lightning's own checkpoints, clipping and sampler are off, because
    `StepCheckpoint`, `InternVLModule` and the plan do that.

    Raises:
        ConfigError: `packs_per_step` is no multiple of `world_size`.
    """
    return {
        "max_steps": stage.max_steps,
        "max_epochs": 1,
        "accumulate_grad_batches": accumulation_of(packs_per_step, world_size),
        "enable_checkpointing": False,
        "gradient_clip_val": None,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }


def build_callbacks(
    stage: StageConfig,
    packing: PackingConfig,
    run_dir: Path,
    checkpoint_dir: Path,
    *,
    settings: CallbacksConfig,
    signals: StopSignals | None = None,
    step_offset: int = 0,
    totals: Mapping[str, float] | None = None,
    journal: bool = False,
    peak_flops: float | None = None,
) -> list[L.Callback]:
    """Build the callbacks of a stage.

    Order matters: monitors fill the step's metrics, then the bar shows and the writer writes them, then the
    journal, and the checkpoint comes after them, so that what it has seen is on disk before it; stopping is last.

    Args:
        stage, packing: settings.
        run_dir: where logs go.
        checkpoint_dir: where this stage's checkpoints go.
        settings: the `callbacks` group.
        signals: stop on these; None = leave signals alone.
        step_offset: optimizer steps of the stages before.
        totals: cumulative counters of the stages before (`tracking.last_values`).
        journal: write the sample keys of each step.
        peak_flops: FLOP/s of one device; logs MFU when given.
    """
    callbacks: list[L.Callback] = []
    if settings.hang_timeout_s is not None:
        callbacks.append(Watchdog(run_dir, settings.hang_timeout_s, settings.abort_on_hang))
    callbacks += [
        StageFreezing(stage),
        ThroughputMonitor(totals, peak_flops),
        PackMonitor(packing),
        SourceLossMonitor(),
    ]
    if settings.progress_bar:
        callbacks.append(StageProgressBar())
    callbacks.append(MetricsWriter(step_offset))
    if journal:
        callbacks.append(Journal(run_dir))
    checkpoint = StepCheckpoint(checkpoint_dir, stage.checkpoint_every)
    stop = [] if signals is None else [StopOnRequest(signals, checkpoint)]
    return [*callbacks, checkpoint, *stop]


def add_monitors(callbacks: Sequence[L.Callback], monitors: Sequence[L.Callback]) -> list[L.Callback]:
    """Put monitors of rooms above this one where their figures still reach the row of the step: before its writer."""
    place = next(i for i, callback in enumerate(callbacks) if isinstance(callback, MetricsWriter))
    return [*callbacks[:place], *monitors, *callbacks[place:]]
