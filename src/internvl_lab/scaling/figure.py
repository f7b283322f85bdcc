"""Make figures without a display, and write them as PNG."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

MAX_LEGEND = 14
"""Runs up to which a legend helps."""


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """Make an empty figure; sizes in inches at 120 dots."""
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title)
    return figure


def new_panels(count: int, title: str = "", columns: int = 3) -> tuple[Figure, list[Axes]]:
    """Make a figure of `count` panels, at most `columns` side by side."""
    across = min(count, columns)
    down = -(-count // across)
    figure = new_figure(4.6 * across, 4.2 * down, title)
    axes: list[Axes] = list(figure.subplots(down, across, squeeze=False).flat)
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, axes[:count]


def colour(number: int) -> str:
    """Return the colour of a run, the same in every picture."""
    return f"C{number % 10}"
