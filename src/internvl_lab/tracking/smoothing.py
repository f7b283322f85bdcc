"""Smooth a logged curve, the same way in every picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SMOOTHING_SHARE = 0.03
"""Width of the moving average over the number of points."""

Floats = NDArray[np.float64]


def smooth(values: Floats, width: int | None = None) -> Floats:
    """Average each of K values with its `width - 1` predecessors, fewer at the start; (K,) -> (K,).

    Args:
        values: (K,) float64.
        width: None = SMOOTHING_SHARE of K, at least 1.
    """
    if width is None:
        width = max(1, round(len(values) * SMOOTHING_SHARE))
    totals = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    averaged: Floats = (totals[ends] - totals[starts]) / (ends - starts)
    return averaged
