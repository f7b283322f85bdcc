"""Write one row of metrics per optimizer step to all loggers.

Monitors put figures into `InternVLModule.metrics`; this callback, which comes after them in the list and
before the checkpoint, writes them. It does not go through Lightning's `self.log`, because that turns
every figure into a float32 tensor (a token count is wrong above 16.8 million) and costs some 0.1 ms each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L

from internvl_lab.training.module import as_step_module


def write_metrics(trainer: L.Trainer, metrics: Mapping[str, Any]) -> None:
    """Give `metrics` to every logger, at the number of finished optimizer steps."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step=trainer.global_step)


class MetricsWriter(L.Callback):
    """Write a row per optimizer step, and prepare the logs for a stage that begins or resumes.

    Args:
        step_offset: optimizer steps of the stages before, for logs whose step axis runs over the whole recipe.
    """

    def __init__(self, step_offset: int = 0) -> None:
        self.step_offset = step_offset

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Name the stage to the loggers and cut append-only logs back to the step that was restored."""
        stage = as_step_module(pl_module).stage.name
        for logger in trainer.loggers:
            if hasattr(logger, "begin_stage"):
                logger.begin_stage(stage, self.step_offset)
            if hasattr(logger, "cut_back"):
                logger.cut_back(stage, trainer.global_step)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the row of the step that ends with this batch."""
        module = as_step_module(pl_module)
        if module.ends_step(batch_idx):
            write_metrics(trainer, module.metrics)
