"""Say where a run hangs: in which pack, on which rank, and in which line of code of every thread."""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L

from internvl_lab.data.batch import Batch
from internvl_lab.training.module import as_step_module

log = logging.getLogger(__name__)

_LONGEST_POLL_S = 10.0
ABORT_STATUS = 70
"""Exit status of a process that the watchdog ended (EX_SOFTWARE of sysexits.h)."""


class Watchdog(L.Callback):
    """Report when no pack has been finished, its fetching included, for `timeout_s`; once per hang, then carry on.

    A thread looks at one monotonic timestamp, which is all that a step pays for. The stacks of all threads are appended
    to `hang.rank<r>.txt`; the log line names the rank, the step and the samples.

    Args:
        run_dir: folder of the run.
        timeout_s: seconds.
        abort: end the process after the report, with status `ABORT_STATUS`: other ranks then fail instead of waiting.
    """

    def __init__(self, run_dir: Path, timeout_s: float, abort: bool = False) -> None:
        self.run_dir = Path(run_dir)
        self.timeout_s = timeout_s
        self.abort = abort
        self._since = 0.0
        self._keys: Sequence[str] | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start watching."""
        self._since = time.monotonic()
        self._stop.clear()
        self._thread = threading.Thread(
            target=self._watch, args=(trainer, as_step_module(pl_module).stage.name), name="watchdog", daemon=True
        )
        self._thread.start()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Note the pack in work."""
        self._keys = batch.sample_keys

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note that a pack is finished; fetching the next one begins."""
        self._keys = None
        self._since = time.monotonic()

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Note that a validation pack is finished."""
        self._since = time.monotonic()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop watching."""
        self._end()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Stop watching."""
        self._end()

    def _end(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _watch(self, trainer: L.Trainer, stage: str) -> None:
        reported = -1.0
        while not self._stop.wait(min(self.timeout_s / 4, _LONGEST_POLL_S)):
            since = self._since
            if since != reported and time.monotonic() - since > self.timeout_s:
                reported = since
                self._report(trainer, stage)

    def _report(self, trainer: L.Trainer, stage: str) -> None:
        path = self.run_dir / f"hang.rank{trainer.global_rank}.txt"
        keys = self._keys
        work = "fetching the next pack" if keys is None else f"working on the pack of samples {', '.join(keys)}"
        line = (
            f"rank {trainer.global_rank} hangs: {stage}, step {trainer.global_step + 1}, "
            f"{work} for more than {self.timeout_s:g} s"
        )
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
            file.write("\n")
        log.error("%s; stacks of all threads: %s", line, path)
        if self.abort:
            logging.shutdown()
            os._exit(ABORT_STATUS)  # the main thread hangs: it could not run an exception
