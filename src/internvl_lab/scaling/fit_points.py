"""Turn runs into the points of a fit: sizes, losses, and what had to be left out, with its reason."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from internvl_lab.errors import ConfigError
from internvl_lab.scaling.runs import Run
from internvl_lab.scaling.table import DONE

Floats = NDArray[np.float64]

COLUMNS = {"vision": "params_vision", "language": "params_language", "data": "tokens"}
"""Axis to the column that holds its size."""
SYMBOLS = {"vision": "Nv", "language": "Nl", "data": "D"}
SAME_LEVEL = math.log(1.1)
"""Sizes nearer than 10 % are one level: packing makes token counts differ a little between like runs."""


@dataclass(frozen=True)
class Points:
    """Hold n runs over the k axes that vary."""

    axes: tuple[str, ...]
    sizes: Floats
    """(n, k) parameters and tokens."""
    losses: Floats
    """(n,)"""
    labels: tuple[str, ...]
    flops: Floats
    """(n,) training FLOPs; NaN where a run has none."""
    constant: Mapping[str, float]
    """Axes without a term, because all runs have this one size."""
    skipped: Mapping[str, int]
    """Why runs were left out, and how many."""
    loss: str
    """Name of the column of the losses."""


def collect(runs: Sequence[Run], loss: str = "val_loss", axes: Sequence[str] = tuple(COLUMNS)) -> Points:
    """Take what can be fitted from a table of runs.

    Args:
        runs: in any order; seeds are points of their own.
        loss: column of the losses.
        axes: those to consider; one on which all runs are of one size gets no term.
    Raises:
        ConfigError: an unknown axis, a column that no run has, nothing to fit, or no axis that varies.
    """
    _check_columns(runs, loss, axes)
    skipped: Counter[str] = Counter()
    kept: list[tuple[Run, list[float]]] = []
    for run in runs:
        numbers = [run.values.get(COLUMNS[axis], math.nan) for axis in axes]
        if reason := _unfit(run, loss, dict(zip(axes, numbers, strict=True))):
            skipped[reason] += 1
        else:
            kept.append((run, numbers))
    if not kept:
        raise ConfigError(f"no run can be fitted: {', '.join(f'{n} {why}' for why, n in skipped.items())}")
    sizes = np.array([numbers for _, numbers in kept], dtype=np.float64)
    varies = [len(set(levels(column))) > 1 for column in sizes.T]
    if not any(varies):
        raise ConfigError(f"no axis varies over the {len(kept)} runs ({', '.join(axes)}): there is nothing to fit")
    return Points(
        tuple(axis for axis, does in zip(axes, varies, strict=True) if does),
        sizes[:, varies],
        np.array([run.values[loss] for run, _ in kept]),
        tuple(run.label for run, _ in kept),
        np.array([run.values.get("flops", math.nan) for run, _ in kept]),
        {axis: float(column[0]) for axis, column, does in zip(axes, sizes.T, varies, strict=True) if not does},
        dict(skipped),
        loss,
    )


def levels(sizes: Floats) -> NDArray[np.int64]:
    """Number the sizes in rising order, those within 10 % of their neighbour alike; (n,) -> (n,)."""
    order = np.argsort(sizes)
    steps = np.diff(np.log(sizes[order])) > SAME_LEVEL
    numbers = np.empty(len(sizes), dtype=np.int64)
    numbers[order] = np.concatenate([[0], np.cumsum(steps)])
    return numbers


def _check_columns(runs: Sequence[Run], loss: str, axes: Sequence[str]) -> None:
    """Refuse axes that do not exist and columns that no run has."""
    for axis in axes:
        if axis not in COLUMNS:
            raise ConfigError(f"unknown axis {axis!r}; axes are {', '.join(COLUMNS)}")
    known = sorted({name for run in runs for name in run.values})
    for column in (loss, *(COLUMNS[axis] for axis in axes)):
        if column not in known:
            raise ConfigError(f"no run has a value of {column!r}; columns with numbers: {', '.join(known) or 'none'}")


def _unfit(run: Run, loss: str, sizes: Mapping[str, float]) -> str:
    """Say why a run cannot be a point; empty when it can."""
    if run.status != DONE:
        return run.status
    if loss not in run.values:
        return f"without {loss}"
    if not (math.isfinite(run.values[loss]) and run.values[loss] > 0):
        return f"with a {loss} that is not finite and above 0"
    missing = [COLUMNS[axis] for axis, size in sizes.items() if not (math.isfinite(size) and size > 0)]
    return f"without {missing[0]}" if missing else ""
