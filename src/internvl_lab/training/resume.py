"""Make Lightning continue exactly where a checkpoint was taken, on any number of ranks.

Lightning's loop counts batches per rank: a run saved at one rank and resumed at two ended early and skipped
packs (DESIGN section 4). Checkpoints here are taken between optimizer steps only, so everything follows from
the number of finished steps; the counters are written anew from it at every resume.

Measured in Lightning 2.6.6 (`loops/training_epoch_loop.py`): a loop resumes in the middle of its epoch
when `epoch_progress` says ready = started = processed + 1; `batch_progress.current.ready` becomes the
fetcher's position, so `is_last_batch` is right with a loader that yields only what is left; and with
completed = processed the validation that belongs to the last step is not run a second time.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import Any

from internvl_lab.errors import ResumeError


@dataclass(frozen=True)
class RunPosition:
    """Say what a checkpoint belongs to; a resumed run must agree in all of it."""

    stage: str
    seed: int
    packs_per_step: int

    def check(self, saved: dict[str, Any]) -> None:
        """Compare with a checkpoint's.

        Raises:
            ResumeError: names the first setting that differs.
        """
        for name, value in vars(self).items():
            if saved.get(name) != value:
                raise ResumeError(f"the checkpoint was saved with {name}={saved.get(name)!r}, this run has {value!r}")


def rewrite_loop_counters(checkpoint: dict[str, Any], accumulation: int) -> None:
    """Set Lightning's counters to 'global_step steps finished, the next batch comes', in place.

    Args:
        checkpoint: as loaded, with `global_step` and `loops`.
        accumulation: packs of one rank in a step, of the run that continues.
    """
    steps = int(checkpoint["global_step"])
    batches = steps * accumulation
    loop: dict[str, Any] = checkpoint["loops"]["fit_loop"]
    loop["epoch_progress"] = _both(ready=1, started=1, processed=0, completed=0)
    loop["epoch_loop.batch_progress"] = {
        **_both(ready=batches, started=batches, processed=batches, completed=batches),
        "is_last_batch": False,
    }
    loop["epoch_loop.scheduler_progress"] = _both(ready=steps, completed=steps)
    loop["epoch_loop.automatic_optimization.optim_progress"] = {
        "optimizer": {
            "step": _both(ready=steps, completed=steps),
            "zero_grad": _both(ready=steps, started=steps, completed=steps),
        }
    }
    loop["epoch_loop.state_dict"] = {"_batches_that_stepped": steps}


def _both(**counts: int) -> dict[str, dict[str, int]]:
    return {"total": dict(counts), "current": dict(counts)}


def silence_lightning() -> None:
    """Mute notes of Lightning that do not hold here, or that are no business of the user's.

    Our data module carries the position, frozen parts run in eval mode on purpose, workers are a setting.
    """
    for message in (
        "You're resuming from a checkpoint that ended before the epoch ended",
        r"Found \d+ module\(s\) in eval mode at the start of training",
        "You have overridden `(transfer_batch_to_device|on_before_batch_transfer)`",
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*does not have many workers",
        "Total length of `list` across ranks is zero",  # no validation packs
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
