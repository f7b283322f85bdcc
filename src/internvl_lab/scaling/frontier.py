"""Divide a budget of FLOPs between encoder, language model and data so that the law's loss is lowest.

The cost is any callable of the three sizes. By default it is the 6ND rule by part, D · (kv·Nv + kl·Nl), with kv and kl
measured from the study's own FLOPs where it has them: how many patches the encoder sees for each token of the language
model, and how often a part is frozen, are properties of the data and the recipe.
Source: Hoffmann et al. 2022, section 3.3 (approach 3), whose closed form for two sizes the tests reproduce.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, nnls  # type: ignore[import-untyped]

from internvl_lab.errors import ConfigError
from internvl_lab.scaling.fit import StudyFit
from internvl_lab.scaling.fit_points import COLUMNS, Floats, Points

CostFunction = Callable[[Mapping[str, float]], float]
"""Sizes by axis (vision, language, data) to FLOPs."""

FLOPS_PER_PARAMETER = 6.0
"""Forward and backward, per parameter and token. Source: Kaplan et al. 2020, section 2.1."""
REACH = 1e4
"""How far beyond the study's sizes, upwards and downwards, an optimum is looked for."""
_STARTS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class PartCost:
    """Cost D · (vision · Nv + language · Nl), in FLOPs."""

    vision: float
    """FLOPs per parameter of the encoder and token of the language model."""
    language: float = FLOPS_PER_PARAMETER
    error: float | None = None
    """Largest relative error over the study's runs, where the factors were measured; None = assumed."""

    def __call__(self, sizes: Mapping[str, float]) -> float:
        """Return the FLOPs of a run of these sizes."""
        return sizes["data"] * (self.vision * sizes["vision"] + self.language * sizes["language"])


@dataclass(frozen=True)
class Optimum:
    """Hold the best division of one budget."""

    budget: float
    """FLOPs."""
    sizes: Mapping[str, float]
    """All three sizes; an axis without a term keeps the study's size."""
    loss: float
    beyond: float
    """The largest factor by which a size lies outside the study's range; 1 = inside."""


def measure_cost(points: Points) -> PartCost:
    """Measure the factors of the cost from the runs' FLOPs, by non-negative least squares of relative errors.

    Raises:
        ConfigError: runs without FLOPs, or without the size of a part.
    """
    columns = {axis: _column(points, axis) for axis in COLUMNS}
    known = np.isfinite(points.flops)
    if not known.any():
        raise ConfigError("no run has a value of 'flops': give the cost yourself (PartCost)")
    parts = np.stack([columns["vision"] * columns["data"], columns["language"] * columns["data"]], axis=1)
    relative = parts[known] / points.flops[known, None]
    (vision, language), _ = nnls(relative, np.ones(known.sum()))
    error = float(np.abs(relative @ np.array([vision, language]) - 1).max())
    return PartCost(float(vision), float(language), error)


def frontier(fit: StudyFit, budgets: Sequence[float], cost: CostFunction | None = None) -> list[Optimum]:
    """Find the sizes with the lowest predicted loss for each budget, by the law of all runs.

    Args:
        fit: of the study.
        budgets: FLOPs, above 0.
        cost: None = `measure_cost`.
    Raises:
        ConfigError: a budget that no sizes within REACH of the study cost, or no cost to be had.
    """
    chosen = measure_cost(fit.points) if cost is None else cost
    return [_optimum(fit, budget, chosen) for budget in budgets]


def _optimum(fit: StudyFit, budget: float, cost: CostFunction) -> Optimum:
    """Minimise the law over log sizes at log cost = log budget, from several starts."""
    points, law = fit.points, fit.final.law
    low, high = np.log(points.sizes.min(axis=0)), np.log(points.sizes.max(axis=0))
    reach = np.log(REACH)

    def sizes(logs: Floats) -> dict[str, float]:
        """Name the sizes; axes that do not vary keep theirs."""
        return {**points.constant, **dict(zip(points.axes, map(float, np.exp(logs)), strict=True))}

    def loss(logs: Floats) -> float:
        """Return the log loss."""
        return float(np.log(law.predict(np.exp(logs))))

    def excess(logs: Floats) -> float:
        """Return by how much the log cost misses the log budget."""
        return float(np.log(cost(sizes(logs))) - np.log(budget))

    found = [
        minimize(
            loss,
            low - reach + share * (high - low + 2 * reach),
            method="SLSQP",
            bounds=list(zip(low - reach, high + reach, strict=True)),
            constraints={"type": "eq", "fun": excess},
            options={"maxiter": 500, "ftol": 1e-12},
        )
        for share in _STARTS
    ]
    valid = [result for result in found if abs(excess(result.x)) < 1e-4]
    if not valid:
        raise ConfigError(f"no sizes within {REACH:g} times those of the study cost {budget:g} FLOPs")
    best = min(valid, key=lambda result: float(result.fun)).x
    beyond = float(np.exp(np.maximum(best - high, low - best).max().clip(0)))
    return Optimum(budget, sizes(best), float(law.predict(np.exp(best))), beyond)


def _column(points: Points, axis: str) -> Floats:
    """Return the size of every run on an axis, also on one without a term; (n,)."""
    if axis in points.axes:
        return points.sizes[:, points.axes.index(axis)]
    if axis in points.constant:
        return np.full(len(points.losses), points.constant[axis])
    raise ConfigError(f"axis {axis} was left out of the fit: the cost needs all of {', '.join(COLUMNS)}")
