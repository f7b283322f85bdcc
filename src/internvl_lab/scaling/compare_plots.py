"""Draw what a comparison shows: loss against cost, scores by capability, score against cost with its Pareto front."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from internvl_lab.drawing import to_png
from internvl_lab.scaling.curves import LossCurve, read_curve
from internvl_lab.scaling.figure import MAX_LEGEND, colour, new_figure, new_panels
from internvl_lab.scaling.fit_points import Floats
from internvl_lab.scaling.runs import Run

AXIS_NAMES = {"tokens": "tokens", "flops": "training FLOPs", "hours": "device hours (training steps)"}
COSTS = ("flops", "hours", "params")
"""What a score can cost, best first."""
COST_NAMES = {"flops": "training FLOPs", "hours": "device hours", "params": "parameters"}


def draw_scores(runs: Sequence[Run], title: str) -> bytes | None:
    """Draw grouped bars: the mean with its standard error, the share of looping answers, then every task.

    Returns:
        The PNG file's bytes; None when no run has a score.
    """
    scored = [(number, run) for number, run in enumerate(runs) if "score" in run.values]
    if not scored:
        return None
    tasks = task_names(runs)
    figure = new_figure(11, 4.5, title)
    axes = figure.add_subplot()
    places, width = np.arange(len(tasks) + 2), 0.8 / len(scored)
    for place, (number, run) in enumerate(scored):
        values = run.values
        heights = [values["score"], values.get("looping", 0.0), *(run.tasks.get(name, 0.0) for name in tasks)]
        centres = places - 0.4 + (place + 0.5) * width
        axes.bar(centres, heights, width, color=colour(number), label=run.label)
        axes.errorbar(centres[0], heights[0], yerr=values.get("standard_error", 0.0), color="black", capsize=3)
    axes.axvline(1.5, color="grey", lw=0.8, ls=":")
    axes.set_xticks(places, ["mean", "looping", *tasks], rotation=20)
    axes.set(ylabel="score", ylim=(0, 1.05))
    axes.grid(axis="y", alpha=0.3)
    if len(scored) <= MAX_LEGEND:
        axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)
    return to_png(figure)


def draw_losses(runs: Sequence[Run]) -> bytes | None:
    """Draw the smoothed training loss against tokens, FLOPs and device hours, as far as they were logged.

    Returns:
        The PNG file's bytes; None when no run logged a loss.
    """
    curves = {number: curve for number, run in enumerate(runs) if (curve := read_curve(run.history)) is not None}
    names = [name for name in AXIS_NAMES if any(name in curve.axes for curve in curves.values())]
    if not names:
        return None
    figure, panels = new_panels(len(names))
    for name, axes in zip(names, panels, strict=True):
        for number, curve in curves.items():
            if name in curve.axes:
                _draw_loss(axes, curve, name, runs[number].devices or 1, number, runs[number].label)
        axes.set(xlabel=AXIS_NAMES[name], ylabel="training loss (moving average)", yscale="log")
        axes.grid(alpha=0.3, which="both")
    if len(curves) <= MAX_LEGEND:
        panels[0].legend(fontsize=8)
    return to_png(figure)


def draw_pareto(runs: Sequence[Run]) -> bytes | None:
    """Draw scores against cost, with the runs that no other beats in both.

    Returns:
        The PNG file's bytes; None when fewer than two runs have a score and a common cost.
    """
    for cost in COSTS:
        known = [(n, c, r) for n, r in enumerate(runs) if (c := cost_of(r, cost)) and "score" in r.values]
        if len(known) >= 2:
            break
    else:
        return None
    costs = np.array([price for _, price, _ in known])
    scores = np.array([run.values["score"] for _, _, run in known])
    front = pareto_front(costs, scores)
    figure = new_figure(7, 4.8)
    axes = figure.add_subplot()
    for (number, price, run), best in zip(known, front, strict=True):
        error, style = run.values.get("standard_error", 0.0), "o" if best else "x"
        axes.errorbar(price, run.values["score"], yerr=error, fmt=style, color=colour(number), capsize=3)
        if best or len(known) <= MAX_LEGEND:
            axes.annotate(
                run.label, (price, run.values["score"]), xytext=(5, 5), textcoords="offset points", fontsize=8
            )
    order = np.flatnonzero(front)[np.argsort(costs[front])]
    axes.step(costs[order], scores[order], where="post", color="black", lw=1, alpha=0.6, label="Pareto front")
    axes.set(xlabel=COST_NAMES[cost], ylabel="score", xscale="log")
    axes.margins(x=0.25)  # room for the labels
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8, loc="lower right")
    return to_png(figure)


def pareto_front(costs: Floats, scores: Floats) -> list[bool]:
    """Say which of n runs no other beats: none that is at least as good in both and better in one; (n,), (n,)."""
    return [
        not any(c <= cost and s >= score and (c < cost or s > score) for c, s in zip(costs, scores, strict=True))
        for cost, score in zip(costs, scores, strict=True)
    ]


def cost_of(run: Run, name: str) -> float | None:
    """Return what a run has cost: training FLOPs, device hours or parameters; None where it is unknown."""
    return run.hours if name == "hours" else run.values.get(name)


def task_names(runs: Sequence[Run]) -> list[str]:
    """List the tasks of all runs in order of appearance."""
    return list(dict.fromkeys(name for run in runs for name in run.tasks))


def _draw_loss(axes: Axes, curve: LossCurve, name: str, devices: int, number: int, label: str) -> None:
    """Draw one curve; hours count every device."""
    places = curve.axes[name] * (devices if name == "hours" else 1)
    axes.plot(places, curve.smoothed(), color=colour(number), lw=1.4, label=label)
