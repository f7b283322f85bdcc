"""Draw the training loss of all stages of a run from its `metrics.csv`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from internvl_lab.drawing import to_png
from internvl_lab.tracking.read_back import read_metrics
from internvl_lab.tracking.smoothing import smooth

SHADES = ("#eef3fb", "#fdf3e7", "#edf7ee", "#f8eef8")


@dataclass(frozen=True)
class StageCurve:
    """Hold the loss of one stage; K logged steps."""

    stage: str
    steps: NDArray[np.float64]
    """(K,) optimizer steps over all stages, so that stages follow each other."""
    losses: NDArray[np.float64]
    """(K,) train/loss; skipped (non-finite) steps are left out."""


def read_curves(run_dir: Path) -> list[StageCurve]:
    """Read the training loss of each stage, in the order in which they ran.

    Args:
        run_dir: run folder; its `metrics.csv` counts steps inside each stage, here they go on over the stages.
    Returns:
        One curve a stage; empty when nothing was trained or logged.
    """
    try:
        columns = read_metrics(run_dir)
    except FileNotFoundError:
        return []
    points: dict[str, list[tuple[float, float]]] = {}
    rows = zip(columns.get("stage", []), columns.get("step", []), columns.get("train/loss", []), strict=False)
    for stage, step, loss in rows:
        if loss is not None and math.isfinite(loss):
            points.setdefault(str(stage or "train"), []).append((float(step), float(loss)))
    curves: list[StageCurve] = []
    for stage, pairs in points.items():
        steps, losses = np.array(pairs, dtype=np.float64).T
        before = float(curves[-1].steps[-1]) if curves else 0.0
        curves.append(StageCurve(stage, steps + before, losses))
    return curves


def draw_loss_curves(curves: Sequence[StageCurve]) -> bytes:
    """Plot loss against steps, each stage on its own shade.

    Returns:
        The PNG file's bytes.
    """
    figure = Figure(figsize=(9, 4.5), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    start = 0.0
    for number, curve in enumerate(curves):
        end = float(curve.steps[-1])
        axes.axvspan(start, end, color=SHADES[number % len(SHADES)], lw=0)
        axes.text((start + end) / 2, 0.98, curve.stage, transform=axes.get_xaxis_transform(), ha="center", va="top")
        axes.plot(curve.steps, curve.losses, color="#9db4d6", lw=0.6)
        axes.plot(curve.steps, smooth(curve.losses), color="#1f4e99", lw=1.6)
        start = end
    axes.set(xlabel="optimizer step", ylabel="training loss", xlim=(0, max(start, 1)))
    axes.set_title("Training loss by stage: each step (light), moving average (dark)", fontsize=10)
    axes.grid(alpha=0.3)
    return to_png(figure)
