"""Draw the histograms of an inspection: tokens and tiles a sample, fill of the packs, aspect ratios of the images.

Samples count as often as `repeat` lets them come, so the bars show what training sees; colours are kinds of samples.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from internvl_lab.data.inspection import KIND_NAMES, Inspection
from internvl_lab.drawing import to_png

COLOURS = ("#8c96a8", "#1f4e99", "#e08a1e", "#3f9b5f")
"""Of text, one image, several images, video."""
BINS = 41
"""Odd, so that squares have a bar of their own between portrait and landscape."""
FILL_BINS = 40
RATIOS = {
    "1:8": 1 / 8, "1:4": 1 / 4, "1:2": 1 / 2, "2:3": 2 / 3, "1:1": 1, "3:2": 3 / 2, "2:1": 2, "4:1": 4, "8:1": 8,
}  # fmt: skip
"""Ticks of the aspect ratios, width to height."""
MAX_SEPARATE_BARS = 60
"""Up to so many tiles a sample each number has its bar."""


def draw_histograms(inspection: Inspection) -> dict[str, bytes]:
    """Draw every histogram.

    Returns:
        Name (`tokens`, `tiles`, `pack_fill`, `aspect_ratios`) to the PNG file's bytes; without images no aspect ratios.
    """
    drawers: dict[str, Callable[[Axes, Inspection], None]] = {
        "tokens": _draw_tokens,
        "tiles": _draw_tiles,
        "pack_fill": _draw_fill,
        "aspect_ratios": _draw_ratios,
    }
    if not len(inspection.aspect_ratios):
        del drawers["aspect_ratios"]
    return {name: _draw(draw, inspection) for name, draw in drawers.items()}


def _draw(draw: Callable[[Axes, Inspection], None], inspection: Inspection) -> bytes:
    """Draw one histogram on its own figure."""
    figure = Figure(figsize=(8, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw(axes, inspection)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return to_png(figure)


def _draw_tokens(axes: Axes, inspection: Inspection) -> None:
    """Draw tokens a sample."""
    bins = np.linspace(0, int(inspection.tokens.max()) + 1, BINS + 1)
    _stack(axes, inspection, inspection.tokens, bins)
    axes.set(xlabel="tokens a sample, visual ones included", ylabel="samples an epoch", xlim=(0, bins[-1]))
    _title(axes, inspection, f"at most {inspection.fill.max_tokens:,} fit a pack")


def _draw_tiles(axes: Axes, inspection: Inspection) -> None:
    """Draw tiles a sample; each number has its bar where that can be read."""
    most = int(inspection.tiles.max())
    bins = np.arange(most + 2) - 0.5 if most <= MAX_SEPARATE_BARS else np.linspace(-0.5, most + 0.5, BINS + 1)
    _stack(axes, inspection, inspection.tiles, bins)
    axes.set(xlabel="tiles a sample, thumbnails included", ylabel="samples an epoch", xlim=(-0.5, most + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _title(axes, inspection, f"at most {inspection.fill.max_tiles:,} fit a pack")


def _stack(axes: Axes, inspection: Inspection, values: np.ndarray, bins: np.ndarray) -> None:
    """Draw values (n,) as bars stacked by kind, weighted by repeat; kinds that do not occur have no entry."""
    present = [i for i in range(len(KIND_NAMES)) if (inspection.kind == i).any()]
    names = list(KIND_NAMES.values())
    axes.hist(
        [values[inspection.kind == i] for i in present],
        bins=bins.tolist(),
        weights=[inspection.repeat[inspection.kind == i] for i in present],
        stacked=True,
        color=[COLOURS[i] for i in present],
        label=[names[i] for i in present],
    )
    axes.legend(frameon=False)


def _draw_fill(axes: Axes, inspection: Inspection) -> None:
    """Draw how full the packs are, in tokens and in tiles."""
    fill = inspection.fill
    bins = np.linspace(0, 1, FILL_BINS + 1).tolist()
    for name, share, colour in (
        ("tokens", fill.tokens / fill.max_tokens, COLOURS[1]),
        ("tiles", fill.tiles / fill.max_tiles, COLOURS[2]),
    ):
        axes.hist(share, bins=bins, histtype="stepfilled", color=colour, alpha=0.55, label=f"{name} {share.mean():.1%}")
    axes.set(xlabel="share of the limit in use", ylabel="packs", xlim=(0, 1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.legend(frameon=False, title="mean fill", loc="upper left")
    limits = f"limits {fill.max_tokens:,} tokens and {fill.max_tiles:,} tiles, efficiency {fill.efficiency:.3f}"
    _title(axes, inspection, f"{len(fill.tokens):,} packs, {limits}")


def _draw_ratios(axes: Axes, inspection: Inspection) -> None:
    """Draw width / height on a logarithmic axis that is symmetric around squares."""
    ratios = inspection.aspect_ratios
    widest = max(2.0, float(np.max(np.maximum(ratios, 1 / ratios))) * 1.05)
    bins = np.geomspace(1 / widest, widest, BINS + 1).tolist()
    axes.hist(ratios, bins=bins, weights=inspection.aspect_repeat, color=COLOURS[1])
    axes.axvline(1, color="#555555", lw=1, ls="--")
    axes.set(xlabel="width / height of an image (logarithmic)", ylabel="images an epoch", xscale="log")
    axes.set_xlim(1 / widest, widest)
    ticks = {name: value for name, value in RATIOS.items() if 1 / widest <= value <= widest}
    axes.set_xticks(list(ticks.values()), list(ticks))
    axes.minorticks_off()
    _title(axes, inspection, f"{len(ratios):,} images")


def _title(axes: Axes, inspection: Inspection, facts: str) -> None:
    """Say what is drawn."""
    axes.set_title(f"{inspection.stage}, mixture {inspection.mixture}: {facts}", fontsize=10, loc="left")
