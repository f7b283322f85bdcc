"""Draw scores: accuracy at every depth (a panel a target, a line style a head), or mIoU of every segmentation head.

A colour is an encoder in both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from internvl_lab.drawing import to_png
from internvl_lab.probing.table import MEAN, Summary

STYLES: dict[str, Literal["-", "--", ":"]] = {"linear": "-", "attention": "--", "knn": ":"}
"""Heads that are drawn, and how."""
COLUMNS = 3


def draw_layerwise(summaries: Sequence[Summary], title: str = "Accuracy at every depth") -> bytes:
    """Draw one panel for each target of each test, the mean first; shaded: one standard deviation over the seeds.

    Depth is shown as a share of the encoder's layers, so that encoders of different depth can be compared.

    Returns:
        The PNG file's bytes.
    """
    panels = sorted(dict.fromkeys((s.test, s.target) for s in summaries), key=lambda panel: panel[1] != MEAN)
    encoders = list(dict.fromkeys(s.encoder for s in summaries))
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows + 0.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, [s for s in summaries if (s.test, s.target) == panel], encoders)
        axes.set_title(panel[1] if len({test for test, _ in panels}) == 1 else f"{panel[0]}: {panel[1]}", fontsize=10)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_axis_off()
    heads = [head for head in STYLES if any(s.head == head for s in summaries)]
    lines = [Line2D([], [], color=f"C{i % 10}", label=encoder) for i, encoder in enumerate(encoders)]
    lines += [Line2D([], [], color="0.3", linestyle=STYLES[head], label=head) for head in heads]
    figure.legend(handles=lines, loc="outside lower center", ncols=min(6, len(lines)), fontsize=9)
    return to_png(figure)


def _draw_panel(axes: Axes, summaries: Sequence[Summary], encoders: Sequence[str]) -> None:
    """Draw the lines of one target."""
    for number, encoder in enumerate(encoders):
        mine = [s for s in summaries if s.encoder == encoder]
        deepest = max((s.depth for s in mine), default=1) or 1
        for head, style in STYLES.items():
            line = sorted((s for s in mine if s.head == head), key=lambda s: s.depth)
            x, y = [s.depth / deepest for s in line], [100 * s.mean for s in line]
            axes.plot(x, y, style, color=f"C{number % 10}", marker="o", markersize=3, lw=1.4)
            low, high = ([100 * (s.mean + sign * s.spread) for s in line] for sign in (-1, 1))
            axes.fill_between(x, low, high, color=f"C{number % 10}", alpha=0.15, lw=0)
    axes.set(xlabel="depth / number of layers", ylabel="accuracy (%)", xlim=(-0.03, 1.03))
    axes.grid(alpha=0.3)


def draw_heads(summaries: Sequence[Summary], title: str = "mIoU of every head") -> bytes:
    """Draw one panel for each test: a group of bars a head, a colour an encoder; lines: one standard deviation.

    Returns:
        The PNG file's bytes.
    """
    tests = list(dict.fromkeys(s.test for s in summaries))
    heads = list(dict.fromkeys(s.head for s in summaries))
    encoders = list(dict.fromkeys(s.encoder for s in summaries))
    figure = Figure(figsize=(max(5.0, 4.2 * len(tests)), 3.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    width = 0.8 / len(encoders)
    for axes, test in zip(figure.subplots(1, len(tests), squeeze=False).flat, tests, strict=True):
        for number, encoder in enumerate(encoders):
            bars = [s for s in summaries if (s.test, s.encoder) == (test, encoder)]
            x = [heads.index(s.head) + (number + 0.5) * width - 0.4 for s in bars]
            height, spread = [100 * s.mean for s in bars], [100 * s.spread for s in bars]
            drawn = axes.bar(x, height, 0.92 * width, color=f"C{number % 10}", yerr=spread, capsize=3, label=encoder)
            axes.bar_label(drawn, fmt="%.1f", fontsize=8, padding=2)
        axes.set(title=test, ylabel="mIoU (%)", ylim=(0, 100), xticks=range(len(heads)), xticklabels=heads)
        axes.grid(axis="y", alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=9)
    return to_png(figure)
