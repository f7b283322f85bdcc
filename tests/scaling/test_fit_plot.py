"""Pictures of a law."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from internvl_lab.scaling import Run, collect, fit_study, frontier
from internvl_lab.scaling.fit_plot import MAX_CURVES, combinations, draw_frontier, draw_law

Make = Callable[..., list[Run]]


@pytest.mark.parametrize(("levels", "panels"), [((3, 3, 4), 4), ((1, 1, 5), 2)])
def test_a_panel_for_each_axis_and_one_for_parity(make_runs: Make, levels: tuple[int, ...], panels: int) -> None:
    fit = fit_study(collect(make_runs(levels, 1e-2)), draws=4)
    picture = Image.open(io.BytesIO(draw_law(fit)))
    assert picture.width == pytest.approx(panels * 4.6 * 120, abs=2)
    blue = (np.asarray(picture.convert("RGB")).reshape(-1, 3) == (31, 119, 180)).all(axis=1).sum()
    assert blue > 500, "the first curve and the marks of the parity panel"


def test_the_frontier_is_drawn(make_runs: Make) -> None:
    fit = fit_study(collect(make_runs((1, 4, 4), 1e-3)), draws=2)
    data = draw_frontier(fit, frontier(fit, [1e14, 1e15, 1e16]))
    assert Image.open(io.BytesIO(data)).width > 1000


def test_combinations_are_at_most_as_many_as_can_be_read() -> None:
    sizes = np.array([(v, n) for v in range(1, 8) for n in (1, 10)], dtype=np.float64)
    groups = combinations(sizes)
    assert len(groups) == MAX_CURVES and groups[0].tolist() == [0] and groups[-1].tolist() == [13]
    assert [g.tolist() for g in combinations(np.array([[1.0], [2.0], [1.0]]))] == [[0, 2], [1]]
    assert [g.tolist() for g in combinations(np.empty((3, 0)))] == [[0, 1, 2]]
