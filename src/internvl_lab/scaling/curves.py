"""Training loss of a run against the tokens it has seen, the FLOPs it has spent and the device hours it has taken."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from internvl_lab.tracking import CUMULATIVE, Columns, read_metrics
from internvl_lab.tracking.smoothing import Floats, smooth

FINAL_STEPS = 20
"""Logged steps at the end of a run whose mean loss is its final loss."""
LOSS, STEP_S = "train/loss", "perf/step_s"
DRAWN = ("tokens", "flops")
"""Counters that curves are drawn over."""


@dataclass(frozen=True)
class LossCurve:
    """Hold K logged steps of one run, over all its stages."""

    losses: Floats
    """(K,) train/loss."""
    axes: Mapping[str, Floats]
    """`tokens`, `flops` and `hours` (of one device, in steps): (K,) each; those that were logged at every step."""

    def smoothed(self) -> Floats:
        """Average each loss with its predecessors; (K,)."""
        return smooth(self.losses)


def read_curve(history: Columns) -> LossCurve | None:
    """Take the loss curve from what a run logged; None when it logged none. Non-finite (skipped) steps are left out."""
    rows = [row for row, loss in enumerate(history.get(LOSS, [])) if loss is not None and math.isfinite(loss)]
    if not rows:
        return None
    axes: dict[str, list[float | None]] = {}
    for name in DRAWN:
        if name in history:
            axes[name] = [history[name][row] for row in rows]
    if STEP_S in history:
        hours = np.cumsum([seconds or 0.0 for seconds in history[STEP_S]]) / 3600
        axes["hours"] = [float(hours[row]) if history[STEP_S][row] is not None else None for row in rows]
    losses = np.array([history[LOSS][row] for row in rows], dtype=np.float64)
    complete = {name: np.array(axis, dtype=np.float64) for name, axis in axes.items() if None not in axis}
    return LossCurve(losses, complete)


def mean_of_last(history: Columns) -> float | None:
    """Average the loss over the last FINAL_STEPS logged steps; None when the run logged none."""
    curve = read_curve(history)
    return None if curve is None else float(curve.losses[-FINAL_STEPS:].mean())


def run_numbers(history: Columns) -> dict[str, float | None]:
    """Take what a run has used and how it ended: the counters, `val_loss` and `final_loss`; None where unknown."""
    counters = {name: _last(history, name) for name in CUMULATIVE}
    return {**counters, "val_loss": _last(history, "val/loss"), "final_loss": mean_of_last(history)}


def read_history(run_dir: Path) -> Columns:
    """Read what the run in `run_dir` logged; no columns where it logged nothing."""
    try:
        return read_metrics(run_dir)
    except FileNotFoundError:
        return {}


def _last(history: Columns, name: str) -> float | None:
    """Return the newest value of a column."""
    return next((value for value in reversed(history.get(name, [])) if value is not None), None)
