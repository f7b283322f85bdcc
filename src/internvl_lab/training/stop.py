"""Stop on request: SIGTERM and SIGUSR1 end a run in such a way that the same command continues it.

    signal ─> StopSignals ─┬─ while a stage trains: noted; StopOnRequest saves after the step, on all ranks, and stops
                           └─ else (data, weights, evaluation): stops at once, for these are made again or continued
    RunStopped (exit status 0) ─> run: one line, and `slurm.requeue_job`

Lightning's own handlers cannot do this. As 2.6.6 is written (`signal_connector.py`, `training_epoch_loop.py`), SIGTERM
ends training after the next micro-batch without a checkpoint, and starts a collective inside the signal handler; under
SLURM, SIGUSR1 saves inside the handler, in the middle of a step. So ours replace them while a stage trains.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning as L
import torch

from internvl_lab.data.parent import STOP_SIGNALS
from internvl_lab.training.checkpointing import StepCheckpoint
from internvl_lab.training.module import as_step_module

QUIET_S = 5.0
"""Clusters repeat signals: seconds in which one more does not break the clean-up. After that it acts anew, because
Python drops an exception that a handler happens to raise inside a destructor."""


class RunStopped(SystemExit):
    """End the process with status 0, because a signal asked for it and nothing is lost.

    Args:
        signum: the signal.
        where: how far the run came; empty outside training.
    """

    def __init__(self, signum: int = 0, where: str = "") -> None:
        super().__init__(0)
        self.signum, self.where = signum, where

    def __str__(self) -> str:
        """Say in one line what stopped the run, where, and how to go on."""
        name = signal.Signals(self.signum).name if self.signum else "request"
        where = f" in {self.where}" if self.where else ""
        return f"stopped by {name}{where}; the same command continues"


class StopSignals:
    """Turn SIGTERM and SIGUSR1 into `RunStopped`: at once, or when a stage has saved its step."""

    def __init__(self) -> None:
        self.requested = 0
        """The signal that asked to stop; 0 = none."""
        self._deferred = False
        self._raised_s = -math.inf
        self._previous: dict[int, Any] = {}

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle the signals inside the block, and put the former handlers back."""
        self.install()
        try:
            yield
        finally:
            for signum, handler in self._previous.items():
                signal.signal(signum, signal.SIG_DFL if handler is None else handler)
            self._previous.clear()

    def install(self) -> None:
        """Set the handlers, anew where another library has replaced them; a thread cannot, and leaves all as it is."""
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in STOP_SIGNALS:
            self._previous.setdefault(signum, signal.signal(signum, self._handle))

    def defer(self) -> None:
        """Only note signals from now on."""
        self._deferred = True

    def release(self) -> None:
        """Stop at once again, also for a signal that was noted.

        Raises:
            RunStopped: a signal was noted.
        """
        self._deferred = False
        if self.requested:
            self._handle(self.requested, None)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.requested = signum
        now = time.monotonic()
        if not self._deferred and now - self._raised_s > QUIET_S:
            self._raised_s = now
            raise RunStopped(signum)


_before_fork = threading.local()
"""`mask`: what the forking thread blocked before."""


def _hold_before_fork() -> None:
    """Let signals wait while a fork is made.

    A SIGTERM that reached the new process before it had forgotten our handlers was raised inside the hook below, where
    Python drops exceptions; the worker lived on, and its pool waited for ever (one of some hundred pools).
    """
    _before_fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def _forget_in_fork() -> None:
    """Give a forked worker the default handlers: pools end their workers by SIGTERM, and must not wait for Python."""
    for signum in STOP_SIGNALS:
        if isinstance(getattr(signal.getsignal(signum), "__self__", None), StopSignals):
            signal.signal(signum, signal.SIG_DFL)
    _release_after_fork()


def _release_after_fork() -> None:
    """Deliver what waited."""
    signal.pthread_sigmask(signal.SIG_SETMASK, _before_fork.mask)


os.register_at_fork(before=_hold_before_fork, after_in_child=_forget_in_fork, after_in_parent=_release_after_fork)


class StopOnRequest(L.Callback):
    """Between two optimizer steps, save and stop if a signal came to any rank; all ranks stop at the same step.

    Acts when the next batch begins, like `StepCheckpoint` and for its reasons, and so must follow it.

    Args:
        signals: what the process was told.
        checkpoint: saves the step.
    """

    def __init__(self, signals: StopSignals, checkpoint: StepCheckpoint) -> None:
        self.signals = signals
        self.checkpoint = checkpoint

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals back from Lightning, which has just set its own handlers."""
        self.signals.defer()
        self.signals.install()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop between two steps.

        Raises:
            RunStopped: a rank was asked to stop.
        """
        if batch_idx % as_step_module(pl_module).accumulation == 0:
            self._stop_if_requested(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop after the last step; the final state is saved.

        Raises:
            RunStopped: a rank was asked to stop.
        """
        self._stop_if_requested(trainer, pl_module)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let signals act at once again.

        Raises:
            RunStopped: one came after the last step.
        """
        self.signals.release()

    def _stop_if_requested(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        signum = self._agreed(trainer)
        if signum:
            self.checkpoint.save(trainer)
            stage = as_step_module(pl_module).stage.name
            raise RunStopped(signum, f"{stage} after step {trainer.global_step} of {trainer.max_steps}")

    def _agreed(self, trainer: L.Trainer) -> int:
        """Return the largest signal number on any rank; SIGTERM (15) wins over SIGUSR1 (10)."""
        if trainer.world_size == 1:
            return self.signals.requested
        mine = torch.tensor(self.signals.requested, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(mine, reduce_op="max"))
