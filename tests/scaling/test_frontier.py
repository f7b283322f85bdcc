"""The compute-optimal division of a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from internvl_lab.errors import ConfigError
from internvl_lab.scaling import Law, PartCost, Run, collect, fit_study, frontier, measure_cost
from internvl_lab.scaling.fit import StudyFit

Make = Callable[..., list[Run]]


@pytest.fixture(scope="module")
def fit(make_runs: Make) -> StudyFit:
    return fit_study(collect(make_runs((3, 3, 4), 1e-4)), draws=2)


def test_the_cost_of_each_part_is_measured(make_runs: Make) -> None:
    cost = measure_cost(collect(make_runs((3, 3, 4), 0.0)))
    assert cost.vision == pytest.approx(12) and cost.language == pytest.approx(6)
    assert cost.error == pytest.approx(0, abs=1e-9)
    assert cost({"vision": 1.0, "language": 2.0, "data": 10.0}) == pytest.approx(240)


def test_the_closed_form_for_two_sizes(make_runs: Make) -> None:
    """Nl = G (C/6)^(c/(b+c)), D = (C/6)^(b/(b+c)) / G, G = (b B / c C)^(1/(b+c)): Hoffmann et al. 2022, eq. 4."""
    fit = fit_study(collect(make_runs((1, 4, 4), 1e-4)), draws=2)
    (big_b, big_c), (b, c) = fit.final.law.coefficients, fit.final.law.exponents
    g = (b * big_b / (c * big_c)) ** (1 / (b + c))
    for best in frontier(fit, [1e14, 1e17], PartCost(vision=0.0)):
        assert best.sizes["language"] == pytest.approx(g * (best.budget / 6) ** (c / (b + c)), rel=1e-3)
        assert best.sizes["data"] == pytest.approx((best.budget / 6) ** (b / (b + c)) / g, rel=1e-3)
        assert best.sizes["vision"] == fit.points.constant["vision"]


def test_no_neighbour_of_the_same_cost_is_better(fit: StudyFit) -> None:
    cost = measure_cost(fit.points)
    (best,) = frontier(fit, [1e16])
    assert cost(best.sizes) == pytest.approx(1e16, rel=1e-3)
    law = fit.final.law
    for axis in ("vision", "language"):
        for factor in (0.8, 1.25):
            sizes = {**best.sizes, axis: best.sizes[axis] * factor}
            sizes["data"] *= 1e16 / cost(sizes)
            assert law.predict(np.array([sizes[a] for a in law.axes])) > best.loss


def test_any_callable_is_a_cost(fit: StudyFit) -> None:
    (best,) = frontier(fit, [1e15], lambda sizes: 6 * sizes["data"] * (sizes["language"] + 100 * sizes["vision"]))
    (cheap,) = frontier(fit, [1e15], lambda sizes: 6 * sizes["data"] * (sizes["language"] + sizes["vision"]))
    assert best.sizes["vision"] < cheap.sizes["vision"]


def test_more_compute_is_better_and_beyond_the_study_is_said(fit: StudyFit) -> None:
    optima = frontier(fit, [1e14, 1e16, 1e19])
    assert optima[0].loss > optima[1].loss > optima[2].loss > fit.final.law.floor
    assert optima[2].beyond > 1
    inside = frontier(fit, [3e15])[0]
    sizes = np.array([inside.sizes[axis] for axis in fit.points.axes])
    outside = np.maximum(sizes / fit.points.sizes.max(axis=0), fit.points.sizes.min(axis=0) / sizes).max()
    assert inside.beyond == pytest.approx(max(1.0, outside))


def test_what_cannot_be_divided_is_refused(make_runs: Make, fit: StudyFit) -> None:
    with pytest.raises(ConfigError, match="no sizes within 10000 times those of the study cost 1 FLOPs"):
        frontier(fit, [1.0])
    runs = make_runs((1, 4, 4), 1e-3)
    blind = [replace(run, values={k: v for k, v in run.values.items() if k != "flops"}) for run in runs]
    with pytest.raises(ConfigError, match="no run has a value of 'flops'"):
        measure_cost(collect(blind))
    with pytest.raises(ConfigError, match="axis vision was left out"):
        measure_cost(collect(runs, axes=["language", "data"]))


def test_the_law_of_all_runs_is_used(fit: StudyFit) -> None:
    worse = replace(fit.final, law=Law(fit.final.law.axes, 9.0, fit.final.law.coefficients, fit.final.law.exponents))
    assert frontier(replace(fit, final=worse), [1e16])[0].loss > 9
