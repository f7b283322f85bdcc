"""Training loss of a run against the tokens it has seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from internvl_lab.tracking.read_back import read_metrics
from internvl_lab.tracking.smoothing import Floats, smooth

FINAL_STEPS = 20
"""Logged steps at the end of a run whose mean loss is its final loss."""


@dataclass(frozen=True)
class LossCurve:
    """Hold K logged steps of one run, over all its stages."""

    tokens: Floats
    """(K,) tokens consumed so far; steps where the run logged no tokens."""
    losses: Floats
    """(K,) train/loss."""

    def smoothed(self) -> Floats:
        """Average each loss with its predecessors; (K,)."""
        return smooth(self.losses)


def read_loss(run_dir: Path) -> LossCurve | None:
    """Read the loss curve of a run; None when it logged none. Skipped (non-finite) steps are left out."""
    try:
        columns = read_metrics(run_dir)
    except FileNotFoundError:
        return None
    losses = columns.get("train/loss", [])
    tokens = columns.get("tokens", [None] * len(losses))
    kept = [(t, loss) for t, loss in zip(tokens, losses, strict=True) if loss is not None and math.isfinite(loss)]
    if not kept:
        return None
    axis = [number if t is None else t for number, (t, _) in enumerate(kept, 1)]
    return LossCurve(np.array(axis, dtype=np.float64), np.array([loss for _, loss in kept], dtype=np.float64))


def final_loss(run_dir: Path) -> float | None:
    """Average the loss over the last FINAL_STEPS logged steps; None when the run logged none."""
    curve = read_loss(run_dir)
    return None if curve is None else float(curve.losses[-FINAL_STEPS:].mean())
