"""Draw a fitted law: loss against each size with bands, predicted against measured loss, and the frontier."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from internvl_lab.drawing import to_png
from internvl_lab.scaling.figure import colour, new_panels
from internvl_lab.scaling.fit import StudyFit
from internvl_lab.scaling.fit_points import SYMBOLS, Floats, levels
from internvl_lab.scaling.frontier import Optimum

NAMES = {"vision": "encoder parameters", "language": "language model parameters", "data": "training tokens"}
MAX_CURVES = 9
"""Curves in one panel; of more, as many are drawn as spread evenly over the others' sizes."""
GRID = 60


def draw_law(fit: StudyFit) -> bytes:
    """Draw the trial law: one panel an axis, and predicted against measured loss.

    Filled marks are runs that the law was fitted to, hollow ones the held-out largest; bands are bootstrap intervals.

    Returns:
        The PNG file's bytes.
    """
    k = len(fit.points.axes)
    figure, panels = new_panels(k + 1, f"{fit.points.loss}: law without the held-out largest runs (hollow)", k + 1)
    for axis, axes in enumerate(panels[:k]):
        _draw_axis(axes, fit, axis)
    _draw_parity(panels[k], fit)
    return to_png(figure)


def draw_frontier(fit: StudyFit, optima: Sequence[Optimum]) -> bytes:
    """Draw the sizes of the compute-optimal runs and their loss against the budget; PNG bytes."""
    figure, panels = new_panels(2, "compute-optimal frontier (law of all runs)", 2)
    budgets = [best.budget for best in optima]
    for number, axis in enumerate(fit.points.axes):
        panels[0].plot(budgets, [best.sizes[axis] for best in optima], "o-", color=colour(number), label=NAMES[axis])
    panels[0].set(xlabel="training FLOPs", ylabel="size", xscale="log", yscale="log")
    panels[0].legend(fontsize=8)
    panels[1].plot(fit.points.flops, fit.points.losses, "x", color="grey", label="runs of the study")
    panels[1].plot(budgets, [best.loss for best in optima], "o-", color="black", label="best division")
    panels[1].set(xlabel="training FLOPs", ylabel=fit.points.loss, xscale="log", yscale="log")
    panels[1].legend(fontsize=8)
    for axes in panels:
        axes.grid(alpha=0.3, which="both")
    return to_png(figure)


def _draw_axis(axes: Axes, fit: StudyFit, axis: int) -> None:
    """Draw loss against one size, a curve for each combination of the others."""
    points = fit.points
    others = [i for i in range(len(points.axes)) if i != axis]
    groups = combinations(points.sizes[:, others])
    along = np.geomspace(points.sizes[:, axis].min(), points.sizes[:, axis].max(), GRID)
    for number, rows in enumerate(groups):
        grid = np.repeat(np.median(points.sizes[rows], axis=0)[None], GRID, axis=0)
        grid[:, axis] = along
        low, high = fit.trial.band(grid)
        name = ", ".join(f"{SYMBOLS[points.axes[i]]} {grid[0, i]:.2g}" for i in others)
        axes.plot(along, fit.trial.law.predict(grid), color=colour(number), lw=1.2, label=name)
        axes.fill_between(along, low, high, color=colour(number), alpha=0.15, lw=0)
        for held in (False, True):
            chosen = rows[fit.held_out[rows] == held]
            face = "none" if held else colour(number)
            axes.scatter(
                points.sizes[chosen, axis], points.losses[chosen], s=22, edgecolors=colour(number), facecolors=face
            )
    axes.set(xlabel=NAMES[points.axes[axis]], ylabel=points.loss, xscale="log", yscale="log")
    for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        which("{x:g}")  # losses stay within one power of ten, which the default writes out on every tick
    axes.grid(alpha=0.3, which="both")
    if others:
        axes.legend(fontsize=6)


def _draw_parity(axes: Axes, fit: StudyFit) -> None:
    """Draw predicted against measured loss."""
    points = fit.points
    predicted = fit.trial.law.predict(points.sizes)
    ends = [min(points.losses.min(), predicted.min()), max(points.losses.max(), predicted.max())]
    axes.plot(ends, ends, color="grey", lw=0.8)
    for held, face, name in ((False, "C0", "fitted"), (True, "none", "held out")):
        rows = fit.held_out == held
        axes.scatter(points.losses[rows], predicted[rows], s=24, edgecolors="C0", facecolors=face, label=name)
    axes.set(xlabel=f"measured {points.loss}", ylabel="predicted")
    axes.set_title(f"held out: {np.abs(fit.errors).mean():.2%} off on average", fontsize=9)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)


def combinations(sizes: Floats) -> list[NDArray[np.intp]]:
    """Group runs by the levels of their other sizes, at most MAX_CURVES groups spread evenly.

    Args:
        sizes: (n, k-1); without columns all runs are one group.
    Returns:
        The rows of each group, in the order of their levels.
    """
    keys = list(zip(*(levels(column).tolist() for column in sizes.T), strict=True)) or [()] * len(sizes)
    names = sorted(set(keys))
    picked = np.unique(np.linspace(0, len(names) - 1, min(len(names), MAX_CURVES)).round().astype(int))
    return [np.array([row for row, key in enumerate(keys) if key == names[i]]) for i in picked]
