from __future__ import annotations

import numpy as np

from internvl_lab.tracking.smoothing import SMOOTHING_SHARE, smooth


def test_smooth_averages_over_predecessors() -> None:
    values = np.array([1.0, 3.0, 5.0, 7.0])
    assert smooth(values, 1).tolist() == [1, 3, 5, 7]
    assert smooth(values, 2).tolist() == [1, 2, 4, 6]
    assert smooth(values, 10).tolist() == [1, 2, 3, 4]


def test_the_default_width_is_a_share_of_the_points() -> None:
    values = np.arange(200, dtype=np.float64)
    assert smooth(values).tolist() == smooth(values, round(200 * SMOOTHING_SHARE)).tolist()
    assert smooth(values[:5]).tolist() == values[:5].tolist()
