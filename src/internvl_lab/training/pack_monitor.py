"""How full the packs are, and how many samples were lost."""

from __future__ import annotations

from typing import Any

import lightning as L

from internvl_lab.config import PackingConfig
from internvl_lab.training.module import as_step_module


class PackMonitor(L.Callback):
    """Log `data/pack_fill_tokens`, `data/pack_fill_tiles` (shares of the budgets, 0 to 1) and `data/skipped`.

    `data/skipped` counts the samples left out since the stage began, because they failed to decode.

    Args:
        packing: the budgets.
    """

    def __init__(self, packing: PackingConfig) -> None:
        self.packing = packing
        self.skipped = 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the step's figures to the metrics."""
        module = as_step_module(pl_module)
        if not module.ends_step(batch_idx) or module.last_step is None:
            return
        counts = module.last_step.counts
        self.skipped += int(counts["bad_samples"])
        module.metrics.update(
            {
                "data/pack_fill_tokens": counts["tokens"] / (counts["packs"] * self.packing.max_tokens),
                "data/pack_fill_tiles": counts["tiles"] / (counts["packs"] * self.packing.max_tiles),
                "data/skipped": self.skipped,
            }
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the count, which a resumed run continues."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the count of a checkpoint."""
        self.skipped = state_dict["skipped"]
