"""The loss of each data source by itself, to see which part of the mixture learns."""

from __future__ import annotations

from typing import Any

import lightning as L

from internvl_lab.training.module import as_step_module


class SourceLossMonitor(L.Callback):
    """Log `train/loss/<source>` for every source with a supervised token in the step.

    The sums come from the step's one collective, so this costs no further communication.
    """

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the step's losses to the metrics."""
        module = as_step_module(pl_module)
        if module.ends_step(batch_idx) and module.last_step is not None:
            losses = module.last_step.source_losses
            module.metrics.update({f"train/loss/{name}": loss for name, loss in losses.items()})
