"""Progress of a stage: a Rich bar on a terminal, one log line every 5 % of the steps elsewhere."""

from __future__ import annotations

import logging
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from rich.console import Console

from internvl_lab.training.module import InternVLModule, as_step_module

log = logging.getLogger(__name__)

_MIN_INTERVAL_S = 0.25
_NUM_LINES = 20


class StageProgressBar(RichProgressBar):
    """Show stage, step of steps, loss, tokens/s, tiles/s and pack fill.

    The bar is touched at most four times a second, so that a step of a few milliseconds is not slowed. Where
    standard output is no terminal (a file, a CI log) no control codes are written.

    Args:
        terminal: draw the bar; None = when standard output is a terminal.
    """

    def __init__(self, terminal: bool | None = None) -> None:
        super().__init__(refresh_rate=4, leave=True)
        self._terminal = Console().is_terminal if terminal is None else terminal
        self._last_refresh = 0.0
        self._line_every = 1
        if not self._terminal:
            super().disable()

    @property
    def is_enabled(self) -> bool:
        """Say whether a bar is drawn."""
        return self._terminal and super().is_enabled

    @property
    def total_train_batches(self) -> int:
        """Return the optimizer steps of the stage: the bar counts these, not packs."""
        return int(self.trainer.max_steps)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the bar, also when training resumes in the middle."""
        super().on_train_start(trainer, pl_module)
        self._line_every = max(1, trainer.max_steps // _NUM_LINES)
        if self.is_enabled and self.train_progress_bar_id is None:
            self._initialize_train_progress_bar_id()

    def _get_train_description(self, current_epoch: int) -> str:
        return as_step_module(self.trainer.lightning_module).stage.name

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Refresh bar or log after an optimizer step, if it is time."""
        module = as_step_module(pl_module)
        if not module.ends_step(batch_idx):
            return
        step, last = trainer.global_step, trainer.global_step == trainer.max_steps
        if not self._terminal:
            if trainer.is_global_zero and (last or step % self._line_every == 0):
                log.info("%s", describe_step(module, step, trainer.max_steps))
        elif self.is_enabled and (last or time.monotonic() - self._last_refresh >= _MIN_INTERVAL_S):
            self._last_refresh = time.monotonic()
            self._update(self.train_progress_bar_id, step)
            if self._metric_component is not None:
                self._metric_component.update(step_figures(module.metrics))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Do nothing: the last step has refreshed the bar."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the step's figures instead of Lightning's."""
        self.reset_dataloader_idx_tracker()


def step_figures(metrics: dict[str, float]) -> dict[str, str]:
    """Return the figures that matter while one watches: loss, rates, pack fill, as short texts."""
    formats = {
        "loss": ("train/loss", "{:.4f}"),
        "tokens/s": ("perf/tokens_per_s", "{:,.0f}"),
        "tiles/s": ("perf/tiles_per_s", "{:,.1f}"),
        "fill": ("data/pack_fill_tokens", "{:.0%}"),
    }
    return {name: text.format(metrics[key]) for name, (key, text) in formats.items() if key in metrics}


def describe_step(module: InternVLModule, step: int, max_steps: int) -> str:
    """Return one line about a step, for logs without a terminal."""
    figures = "  ".join(f"{name} {value}" for name, value in step_figures(module.metrics).items())
    return f"{module.stage.name}  step {step:,}/{max_steps:,}  {figures}"
