"""Write down which samples every step consumed: the proof that a resumed run saw the same data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

import lightning as L

from internvl_lab.atomic import write_atomic
from internvl_lab.data.batch import Batch
from internvl_lab.tracking.append_only import complete_lines, rows_until
from internvl_lab.training.module import as_step_module


class Journal(L.Callback):
    """Append a line `{"stage", "step", "keys"}` per optimizer step; keys in the order of consumption.

    Each rank writes its own file: `journal.jsonl`, or `journal.rank<r>.jsonl` when there are several.

    Args:
        run_dir: folder of the run.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = Path(run_dir)
        self.path = self.run_dir / "journal.jsonl"
        self._keys: list[str] = []
        self._file: TextIO | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the file, cut back to the step that was restored."""
        if trainer.world_size > 1:
            self.path = self.run_dir / f"journal.rank{trainer.global_rank}.jsonl"
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.cut_back(as_step_module(pl_module).stage.name, trainer.global_step)
        self._file = self.path.open("a", encoding="utf-8")

    def cut_back(self, stage: str, step: int) -> None:
        """Drop the lines after `step` of `stage`, and half a last line."""
        lines = [(json.loads(line), line) for line in complete_lines(self.path)]
        kept = rows_until(lines, lambda pair: (pair[0]["stage"], pair[0]["step"]), stage, step)
        write_atomic(self.path, "".join(line for _, line in kept))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Collect the batch's keys; write the line at the end of the step."""
        module = as_step_module(pl_module)
        self._keys += batch.sample_keys
        if module.ends_step(batch_idx) and self._file is not None:
            entry = {"stage": module.stage.name, "step": trainer.global_step, "keys": self._keys}
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self._file.flush()
            self._keys = []

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
