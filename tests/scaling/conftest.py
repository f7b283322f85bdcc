"""Planted studies: runs whose law is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from internvl_lab.scaling import Law, Run

AXES = ("vision", "language", "data")
COLUMNS = ("params_vision", "params_language", "tokens")
PLANTED = Law(AXES, 0.6, np.array([25.0, 60.0, 400.0]), np.array([0.34, 0.37, 0.45]))
"""Each term falls from about 0.3 to 0.05 over the sizes below."""


def planted_runs(levels: Sequence[int], noise: float, seed: int = 0, law: Law = PLANTED) -> list[Run]:
    """Make a grid of runs; `levels` sizes on each axis, a factor of 100 between the ends, losses off by `noise`."""
    starts = (3e5, 1e6, 1e7)
    sizes = [np.geomspace(start, 100 * start, number) for start, number in zip(starts, levels, strict=True)]
    grid = np.stack(np.meshgrid(*sizes, indexing="ij"), axis=-1).reshape(-1, 3)
    losses = law.predict(grid) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(grid)))
    return [
        Run(
            f"run {number}",
            {
                **dict(zip(COLUMNS, map(float, row), strict=True)),
                "val_loss": float(loss),
                "flops": float(row[2] * (12 * row[0] + 6 * row[1])),
            },
        )
        for number, (row, loss) in enumerate(zip(grid, losses, strict=True))
    ]


@pytest.fixture(scope="session")
def planted() -> Law:
    """Give the law of the planted runs."""
    return PLANTED


@pytest.fixture(scope="session")
def make_runs() -> Callable[..., list[Run]]:
    """Give the function that plants runs."""
    return planted_runs
