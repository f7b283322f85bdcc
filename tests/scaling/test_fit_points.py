"""What of a table can be fitted, and what is left out for which reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from internvl_lab.errors import ConfigError
from internvl_lab.scaling import Run, collect
from internvl_lab.scaling.fit_points import levels

Make = Callable[..., list[Run]]


def with_value(run: Run, **values: float | None) -> Run:
    """Change values of a run; None = remove."""
    changed = {**run.values, **values}
    return replace(run, values={name: value for name, value in changed.items() if value is not None})


def test_runs_become_points(make_runs: Make) -> None:
    runs = make_runs((2, 3, 4), 0.0)
    points = collect(runs)
    assert points.axes == ("vision", "language", "data") and points.sizes.shape == (24, 3)
    assert points.sizes[0].tolist() == [runs[0].values[n] for n in ("params_vision", "params_language", "tokens")]
    assert points.losses.tolist() == [run.values["val_loss"] for run in runs]
    assert points.labels[:2] == ("run 0", "run 1") and not points.skipped and not points.constant


def test_what_cannot_be_fitted_is_counted(make_runs: Make) -> None:
    runs = make_runs((1, 3, 4), 0.0)
    runs[0] = replace(runs[0], status="failed")
    runs[1] = replace(runs[1], status="failed")
    runs[2] = with_value(runs[2], val_loss=math.nan)
    runs[3] = with_value(runs[3], val_loss=None)
    runs[4] = with_value(runs[4], tokens=None)
    runs[5] = with_value(runs[5], val_loss=0.0, flops=None)
    runs[6] = with_value(runs[6], flops=None)
    points = collect(runs)
    assert points.skipped == {
        "failed": 2,
        "with a val_loss that is not finite and above 0": 2,
        "without val_loss": 1,
        "without tokens": 1,
    }
    assert len(points.losses) == 6 and math.isnan(points.flops[0]) and points.flops[1] > 0


def test_a_constant_axis_has_no_term(make_runs: Make) -> None:
    points = collect(make_runs((1, 3, 4), 0.0))
    assert points.axes == ("language", "data") and points.constant == {"vision": 3e5}


@pytest.mark.parametrize(
    ("change", "options", "problem"),
    [
        ({}, {"axes": ["vision", "depth"]}, "unknown axis 'depth'; axes are vision, language, data"),
        ({}, {"loss": "test_loss"}, "no run has a value of 'test_loss'; columns with numbers: flops, params_language"),
        ({"tokens": None}, {}, "no run has a value of 'tokens'"),
        ({"val_loss": math.inf}, {}, "no run can be fitted: 12 with a val_loss that is not finite"),
        ({"params_language": 1e6, "tokens": 1e6}, {}, "no axis varies over the 12 runs"),
    ],
)
def test_nothing_to_fit_is_one_sentence(make_runs: Make, change: dict, options: dict, problem: str) -> None:
    runs = [with_value(run, **change) for run in make_runs((1, 3, 4), 0.0)]
    with pytest.raises(ConfigError, match=problem):
        collect(runs, **options)


def test_sizes_within_a_tenth_are_one_level() -> None:
    assert levels(np.array([200.0, 100.0, 104.0, 1000.0, 205.0])).tolist() == [1, 0, 0, 2, 1]
