"""Draw the curves of a test-time run: score over N with bands, and score over the cost of a question."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from internvl_lab.drawing import to_png
from internvl_lab.inference.test_time.results import Curve, Result

COLOURS = {"majority": "#1f4e99", "weighted": "#2a9d8f", "best_of_n": "#d1701f", "pass": "#8a8f98"}
LABELS = {
    "majority": "majority vote",
    "weighted": "weighted vote",
    "best_of_n": "best of N",
    "pass": "any of N right (pass@N)",
    "direct": "direct, greedy",
    "cot": "with steps, greedy",
}
GREEDY_STYLES = {"direct": ("#b3261e", "--"), "cot": ("#b3261e", ":")}
COLUMNS = 3
PANEL = (4.6, 3.5)
GIGA = 1e9
COSTS = {
    "flops": ("GFLOPs a question, prompt and critic included", GIGA),
    "tokens": ("generated tokens a question", 1.0),
}
"""Field of curves and rows to its label and unit."""


def draw_curves(results: Sequence[Result], subtitle: str) -> bytes:
    """Draw one panel a result, and for the first one score over operations and over generated tokens.

    Args:
        results: with curves; the first is the whole run.
        subtitle: what was run.
    Returns:
        The PNG file's bytes.
    """
    panels = len(results) + len(COSTS)
    columns = min(COLUMNS, panels)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows + 0.9), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    axes = [grid[0], *grid[1 + len(COSTS) : panels]]
    for axis, result in zip(axes, results, strict=True):
        _draw_over_samples(axis, result)
    for axis, cost in zip(grid[1:], COSTS, strict=False):
        _draw_over_cost(axis, results[0], cost)
    for axis in grid[panels:]:
        axis.set_visible(False)
    figure.suptitle(f"Test-time scaling: {subtitle}", fontsize=11)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False, fontsize=9)
    return to_png(figure)


def _draw_over_samples(axis: Axes, result: Result) -> None:
    """Draw score over N with bands, and the greedy answers as lines."""
    for curve in result.curves:
        _draw_curve(axis, curve, [float(size) for size in curve.sizes])
    for name, (colour, style) in GREEDY_STYLES.items():
        if row := result.row(name):
            axis.axhline(row.score.mean, color=colour, linestyle=style, lw=1.3, label=LABELS[name])
    sizes = result.curves[0].sizes
    axis.set_title(f"{result.task} (n = {result.num_questions})", fontsize=10)
    axis.set(xlabel="samples N", ylabel="score")
    _finish(axis, [float(size) for size in sizes if size & (size - 1) == 0 or size == sizes[-1]])


def _draw_over_cost(axis: Axes, result: Result, cost: str) -> None:
    """Draw score over a cost of a question; the greedy answers are points."""
    label, unit = COSTS[cost]
    for curve in result.curves:
        _draw_curve(axis, curve, [value / unit for value in getattr(curve, cost)])
    for name, (colour, _) in GREEDY_STYLES.items():
        if row := result.row(name):
            marker = "x" if name == "direct" else "+"
            axis.plot(getattr(row, cost) / unit, row.score.mean, marker, color=colour, ms=9, mew=2)
    axis.set_title(f"{result.task}, over cost (x direct, + with steps)", fontsize=10)
    axis.set(xlabel=label, ylabel="score")
    _finish(axis, None)


def _draw_curve(axis: Axes, curve: Curve, places: Sequence[float]) -> None:
    means = [band.mean for band in curve.bands]
    lows, highs = [band.low for band in curve.bands], [band.high for band in curve.bands]
    colour = COLOURS[curve.name]
    style = "--" if curve.name == "pass" else "-"
    axis.fill_between(places, lows, highs, color=colour, alpha=0.13, lw=0)
    axis.plot(places, means, style, color=colour, lw=1.8, marker="o", ms=3.5, label=LABELS[curve.name])


def _finish(axis: Axes, ticks: list[float] | None) -> None:
    """Scale the axes: doublings of N across, or cost from 0 on; shares from 0 to 1 up."""
    if ticks is None:
        axis.set_xlim(left=0)
    else:
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.set_xticks(ticks)
        axis.minorticks_off()
    axis.set_ylim(-0.02, 1.02)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
