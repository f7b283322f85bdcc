"""Fit how the loss falls with the sizes of a study, and say how far the fit can be trusted.

::

    Points ─ hold out the largest runs ─┬─> Fitted law of the others ─ predicts ─> error on the held-out runs
                                        └─> Fitted law of all runs ─> compute-optimal frontier (`frontier`)

    L = E + A·Nv^-a + B·Nl^-b + C·D^-c

As in Chinchilla, the Huber loss of the log residuals is minimised, so that a diverged run counts little. For fixed
exponents the law is linear in E, A, B and C: a grid of exponents, each solved by non-negative least squares, gives
starts that are already near, and the best few are refined. Intervals come from a residual bootstrap, which keeps the
design: drawing runs anew would lose whole levels of a grid of three sizes.

Dimensions: n runs, k axes, p = 1 + 2k parameters, B bootstrap draws.
Source: Hoffmann et al. 2022, appendix D.2 (parametric fit, Huber with delta 1e-3), with a term for the encoder added.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, nnls  # type: ignore[import-untyped]

from internvl_lab.errors import ConfigError
from internvl_lab.scaling.fit_points import Floats, Points, levels

HUBER_DELTA = 1e-3
"""Log residual from which the loss grows linearly. Source: Hoffmann et al. 2022."""
EXPONENTS = (0.05, 0.15, 0.3, 0.5, 0.8, 1.2)
"""Grid of exponents for the starts."""
NUM_STARTS = 6
"""Starts that are refined, best first."""
NUM_DRAWS = 200
CONFIDENCE = 0.95
MIN_LEVELS = 3
"""Sizes that a power law with a floor needs on each axis."""
_EXPONENT_BOUNDS = (0.0, 5.0)
_LOWEST = 1e-9
"""Share of the smallest loss below which a term counts as absent."""


@dataclass(frozen=True)
class Law:
    """Hold L = floor + sum over axes of coefficient · size^-exponent."""

    axes: tuple[str, ...]
    floor: float
    """E, the loss that no size removes."""
    coefficients: Floats
    """(k,) A, B, C; in units of the loss times size^exponent."""
    exponents: Floats
    """(k,) a, b, c."""

    def predict(self, sizes: Floats) -> Floats:
        """Predict the loss at each row of sizes; (n, k) -> (n,)."""
        terms = self.coefficients * np.exp(-self.exponents * np.log(sizes))
        predicted: Floats = self.floor + terms.sum(axis=-1)
        return predicted


@dataclass(frozen=True)
class Fitted:
    """Hold a law with its uncertainty."""

    law: Law
    draws: tuple[Law, ...]
    """Laws of B bootstrap draws."""
    residuals: Floats
    """(n,) log of predicted over observed loss."""

    @property
    def spread(self) -> float:
        """Return the root mean square of the log residuals, corrected for the p parameters; about a relative error."""
        free = max(len(self.residuals) - 1 - 2 * len(self.law.axes), 1)
        return float(np.sqrt((self.residuals**2).sum() / free))

    def band(self, sizes: Floats) -> tuple[Floats, Floats]:
        """Return the interval of the predicted loss at each row of sizes; (n, k) -> (n,), (n,)."""
        return interval(np.stack([law.predict(sizes) for law in self.draws]))


@dataclass(frozen=True)
class StudyFit:
    """Hold the law of a study, and what it is worth."""

    points: Points
    held_out: NDArray[np.bool_]
    """(n,) runs that the trial has not seen."""
    trial: Fitted
    """Fitted without the held-out runs."""
    final: Fitted
    """Fitted to all runs: what to extrapolate with, once the trial's error is known."""

    @cached_property
    def errors(self) -> Floats:
        """Return how far the trial's prediction of each held-out run is off, relative to what was measured: (h,)."""
        predicted = self.trial.law.predict(self.points.sizes[self.held_out])
        relative: Floats = predicted / self.points.losses[self.held_out] - 1
        return relative


def fit_study(points: Points, draws: int = NUM_DRAWS, seed: int = 0) -> StudyFit:
    """Fit without the largest runs, predict these, then fit to all.

    Args:
        points: from `collect`.
        draws: bootstrap draws, at least 2.
        seed: of the draws.
    Raises:
        ConfigError: too few runs, or too few sizes on an axis; says which, and what to do.
    """
    held_out = largest_runs(points)
    kept = ~held_out
    _check_levels(points, kept)
    trial = bootstrap(points.axes, points.sizes[kept], points.losses[kept], draws, seed)
    return StudyFit(points, held_out, trial, bootstrap(points.axes, points.sizes, points.losses, draws, seed))


def largest_runs(points: Points) -> NDArray[np.bool_]:
    """Choose the runs to hold out: largest on at least two axes, so that every axis keeps its sizes.

    With a single axis these are the largest on it. Where no run is largest on two (equal budgets: the larger the model,
    the fewer the tokens) those of the highest cost are held out, in FLOPs, or else in the product of the sizes.

    Returns:
        (n,) true = held out; at least one.
    """
    largest = np.stack([number == number.max() for number in map(levels, points.sizes.T)], axis=1)
    chosen: NDArray[np.bool_] = largest.sum(axis=1) >= min(2, len(points.axes))
    if not chosen.any():
        budgets = levels(points.flops if np.isfinite(points.flops).all() else points.sizes.prod(axis=1))
        chosen = budgets == budgets.max()
    return chosen


def bootstrap(axes: tuple[str, ...], sizes: Floats, losses: Floats, draws: int, seed: int = 0) -> Fitted:
    """Fit a law, and again to `draws` sets of losses made of its predictions and resampled residuals.

    Args:
        axes: k names.
        sizes: (n, k), above 0.
        losses: (n,), above 0.
        draws: B.
        seed: of the draws.
    """
    problem = _Problem(sizes, np.log(losses))
    best = problem.solve()
    fitted = problem.predict(best)
    residuals = fitted - problem.targets
    n, p = len(losses), len(best)
    scaled = (residuals - residuals.mean()) * np.sqrt(n / max(n - p, 1))  # a fit of p parameters hides p residuals
    rng = np.random.default_rng(seed)
    laws = [_Problem(sizes, fitted + rng.choice(scaled, n), problem.scale).refine(best)[0] for _ in range(draws)]
    return Fitted(problem.law(axes, best), tuple(problem.law(axes, law) for law in laws), residuals)


def interval(values: Floats) -> tuple[Floats, Floats]:
    """Return the central CONFIDENCE interval over draws; (B, ...) -> (...,), (...,)."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(values, [tail, 100 - tail], axis=0)
    return low, high


def _check_levels(points: Points, kept: NDArray[np.bool_]) -> None:
    """Refuse to fit more parameters than the kept runs can determine."""
    for axis, column in zip(points.axes, points.sizes.T, strict=True):
        number = len(set(levels(column)[kept]))
        if number < MIN_LEVELS:
            raise ConfigError(
                f"axis {axis} has {number} sizes without the held-out largest runs, and a power law with a floor needs "
                f"{MIN_LEVELS}: add runs of other sizes, or leave the axis out (--axes)"
            )
    needed = 1 + 2 * len(points.axes)
    if kept.sum() < needed:
        raise ConfigError(
            f"{kept.sum()} runs are left without the held-out largest ones, and {needed} parameters need as many: "
            "add runs, or leave an axis out (--axes)"
        )


class _Problem:
    """Hold one least-Huber problem in (log E, log A, a, log B, b, ...), sizes divided by their geometric means."""

    def __init__(self, sizes: Floats, targets: Floats, scale: Floats | None = None) -> None:
        logs = np.log(sizes)
        self.scale = logs.mean(axis=0) if scale is None else scale
        self.logs = logs - self.scale
        self.targets = targets
        smallest, largest = float(targets.min()), float(targets.max())
        low = smallest + np.log(_LOWEST)
        self.bounds = [(low, largest), *([(low, largest + 5.0), _EXPONENT_BOUNDS] * self.logs.shape[1])]

    def predict(self, theta: Floats) -> Floats:
        """Return the log loss; (p,) -> (n,)."""
        predicted: Floats = np.logaddexp.reduce(self._terms(theta), axis=1)
        return predicted

    def solve(self) -> Floats:
        """Return the best parameters over several starts; (p,)."""
        starts = sorted(
            (self._start(exponents) for exponents in product(EXPONENTS, repeat=self.logs.shape[1])), key=lambda s: s[0]
        )
        refined = [self.refine(theta) for _, theta in starts[:NUM_STARTS]]
        return min(refined, key=lambda pair: pair[1])[0]

    def refine(self, theta: Floats) -> tuple[Floats, float]:
        """Minimise from `theta`; return the parameters (p,) and the objective."""
        options = {"maxiter": 2000, "ftol": 1e-13, "gtol": 1e-9}
        found = minimize(self._objective, theta, jac=True, method="L-BFGS-B", bounds=self.bounds, options=options)
        return found.x, float(found.fun)

    def law(self, axes: tuple[str, ...], theta: Floats) -> Law:
        """Undo the scaling."""
        exponents = theta[2::2]
        return Law(axes, float(np.exp(theta[0])), np.exp(theta[1::2] + exponents * self.scale), exponents)

    def _terms(self, theta: Floats) -> Floats:
        """Return the logs of the law's terms; (n, 1 + k)."""
        floor = np.full((len(self.logs), 1), theta[0])
        return np.concatenate([floor, theta[1::2] - theta[2::2] * self.logs], axis=1)

    def _objective(self, theta: Floats) -> tuple[float, Floats]:
        """Return the mean Huber loss in units of delta squared, and its gradient (p,)."""
        terms = self._terms(theta)
        predicted = np.logaddexp.reduce(terms, axis=1)
        scaled = (predicted - self.targets) / HUBER_DELTA
        size = np.abs(scaled)
        slope = np.clip(scaled, -1, 1) / (len(scaled) * HUBER_DELTA)
        shares = np.exp(terms - predicted[:, None])
        gradient = np.empty_like(theta)
        gradient[0] = slope @ shares[:, 0]
        gradient[1::2] = slope @ shares[:, 1:]
        gradient[2::2] = -slope @ (shares[:, 1:] * self.logs)
        return float(np.where(size <= 1, 0.5 * scaled**2, size - 0.5).mean()), gradient

    def _start(self, exponents: tuple[float, ...]) -> tuple[float, Floats]:
        """Solve for floor and coefficients at fixed exponents; return the residual and the parameters (p,)."""
        losses = np.exp(self.targets)
        columns = np.concatenate([np.ones((len(losses), 1)), np.exp(-np.array(exponents) * self.logs)], axis=1)
        linear, residual = nnls(columns / losses[:, None], np.ones(len(losses)))
        theta = np.empty(1 + 2 * len(exponents))
        logs = np.log(np.maximum(linear, 1e-3 * losses.min()))  # a start at the bound would have no gradient
        theta[0], theta[1::2], theta[2::2] = logs[0], logs[1:], exponents
        return float(residual), theta
