"""Resumable checkpoints: taken between optimizer steps, visible only when complete.

A checkpoint is Lightning's file (weights, optimizer, schedule, callbacks' and data module's state) without any
pickled object, so it loads with `weights_only=True`. It is written under a temporary name and moved.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import lightning as L
import torch

from internvl_lab.constants import STATE_KEY
from internvl_lab.errors import CheckpointError
from internvl_lab.training.module import as_step_module

log = logging.getLogger(__name__)

_NAME = re.compile(r"step_(\d{8})\.ckpt")
_TEMPORARY_PREFIX = ".writing-"


class StepCheckpoint(L.Callback):
    """Save every `every` optimizer steps and at the end of training; keep the newest `keep`.

    Saves when the next batch begins, not when the last one ends: by then the step's row is written, a due
    validation has run, and the data module knows that the step is consumed.

    Args:
        folder: where checkpoints go.
        every: optimizer steps between two.
        keep: how many stay.
    """

    def __init__(self, folder: Path, every: int, keep: int = 2) -> None:
        self.folder = Path(folder)
        self.every = every
        self.keep = keep
        self._saved_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the restored step, which needs no second checkpoint, and remove what a kill left half-written."""
        self._saved_step = trainer.global_step
        if trainer.is_global_zero:
            for leftover in self.folder.glob(f"{_TEMPORARY_PREFIX}*"):
                _remove(leftover)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save when a step that is due has just been finished."""
        between_steps = batch_idx % as_step_module(pl_module).accumulation == 0
        if between_steps and trainer.global_step % self.every == 0:
            self.save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the final state."""
        self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Save the state after `trainer.global_step` steps unless that is done; all ranks must call this."""
        step = trainer.global_step
        if step == self._saved_step:
            return
        self._saved_step = step
        final = self.folder / f"step_{step:08d}.ckpt"
        temporary = self.folder / f"{_TEMPORARY_PREFIX}{final.name}"
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
        trainer.save_checkpoint(temporary, weights_only=False)
        if trainer.is_global_zero:
            _publish(temporary, final)
            for _, old in list_checkpoints(self.folder)[: -self.keep]:
                _remove(old)
        log.info("checkpoint after step %d: %s", step, final)


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return (step, path) of the finished checkpoints in `folder`, oldest first."""
    found = ((_NAME.fullmatch(path.name), path) for path in folder.glob("step_*.ckpt"))
    return sorted((int(match[1]), path) for match, path in found if match)


def find_resume(folder: Path) -> Path | None:
    """Return the newest readable checkpoint in `folder`; None when there is none (start the stage anew).

    Half-written files bear another name and are never looked at; a damaged one is reported and passed over.
    """
    for _, path in reversed(list_checkpoints(Path(folder))):
        if is_readable(path):
            return path
        log.warning("checkpoint %s is damaged; trying the one before", path)
    return None


def position_of(path: Path) -> tuple[str, int]:
    """Return (stage, finished steps) of a checkpoint file.

    Raises:
        CheckpointError: no file, or no checkpoint of ours.
    """
    if not path.exists():
        raise CheckpointError(f"checkpoint {path} does not exist")
    if not is_readable(path):
        raise CheckpointError(f"{path} is not a readable checkpoint")
    content = torch.load(path / "meta.pt" if path.is_dir() else path, map_location="cpu", mmap=True, weights_only=True)
    if STATE_KEY not in content:
        raise CheckpointError(f"{path} was not written by a stage of internvl-lab; init_from=DIR takes weights alone")
    return str(content[STATE_KEY]["stage"]), int(content["global_step"])


def is_readable(path: Path) -> bool:
    """Say whether a checkpoint can be opened; tensors are mapped, not read."""
    if path.is_dir():  # a sharded checkpoint (FSDP2)
        return (path / ".metadata").is_file() and (path / "meta.pt").is_file()
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError):
        return False
    return isinstance(content, dict) and "global_step" in content


def _publish(temporary: Path, final: Path) -> None:
    """Give a finished checkpoint its name, in one step that cannot be half done."""
    if temporary.is_file():
        with temporary.open("rb") as file:  # on disk before it is visible: holds also when power fails
            os.fsync(file.fileno())
    if final.is_dir():
        shutil.rmtree(final)
    os.replace(temporary, final)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
