"""Count steps that must not reach the optimizer, and stop the run when they come in a row."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch

from internvl_lab.errors import NonFiniteError
from internvl_lab.training.losses import StepResult, StepTotals

log = logging.getLogger(__name__)


@dataclass
class StepGuard:
    """Decide from global figures alone, so that all ranks decide alike.

    Args:
        max_bad_steps: non-finite steps in a row after which the run stops.
    """

    max_bad_steps: int
    skipped_steps: int = 0
    """Steps without an update since the stage began."""
    bad_in_row: int = 0

    def refuses(self, result: StepResult, totals: StepTotals, step: int) -> bool:
        """Say whether the step must be skipped; count it and name its samples.

        Args:
            result: figures of the step.
            totals: this rank's packs of the step.
            step: number of the step, for the message.

        Raises:
            NonFiniteError: `max_bad_steps` non-finite steps in a row.
        """
        if result.weight == 0:
            self.skipped_steps += 1
            log.warning("step %d holds no supervised token: skipped", step)
            return True
        if result.finite:
            self.bad_in_row = 0
            return False
        self.skipped_steps += 1
        self.bad_in_row += 1
        self._name_packs(result, totals, step)
        if self.bad_in_row >= self.max_bad_steps:
            raise NonFiniteError(
                f"{self.bad_in_row} steps in a row with a non-finite loss or gradient, the last is step {step}; "
                "the warnings above name the samples (optimizer.max_bad_steps sets how many are tolerated)"
            )
        return True

    def _name_packs(self, result: StepResult, totals: StepTotals, step: int) -> None:
        """Warn on the rank that has the offending packs; a bad gradient of good losses cannot be told apart."""
        offenders = [keys for keys, loss in totals.packs if not torch.isfinite(loss).item()]
        if offenders:
            log.warning("step %d: non-finite loss in the packs of samples %s; step skipped", step, _names(offenders))
        elif math.isfinite(result.loss):
            packs = _names([keys for keys, _ in totals.packs])
            log.warning("step %d: gradient not finite, losses are; packs of samples %s; step skipped", step, packs)

    def state_dict(self) -> dict[str, int]:
        """Return the counts, for the checkpoint."""
        return {"skipped_steps": self.skipped_steps, "bad_in_row": self.bad_in_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from the counts of a checkpoint."""
        self.skipped_steps, self.bad_in_row = state["skipped_steps"], state["bad_in_row"]


def _names(packs: list[list[str]]) -> str:
    return "; ".join("[" + ", ".join(keys) + "]" for keys in packs)
