"""Loss curves of runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from internvl_lab.scaling.curves import FINAL_STEPS, LossCurve, mean_of_last, read_curve, read_history
from internvl_lab.tracking import read_metrics


def write(folder: Path, text: str) -> Path:
    (folder / "metrics.csv").write_text(text)
    return folder


def test_loss_over_all_stages_against_every_cost(tmp_path: Path) -> None:
    text = (
        "stage,step,tokens,flops,perf/step_s,train/loss\nstage1,1,100,5,1800,4\nstage1,2,200,6,1800,3\n"
        "stage1,3,300,7,3600,nan\nstage2,1,400,8,1800,2\nstage2,1,,,,\n"
    )
    curve = read_curve(read_metrics(write(tmp_path, text)))
    assert curve is not None
    assert curve.losses.tolist() == [4, 3, 2]
    axes = {name: axis.tolist() for name, axis in curve.axes.items()}
    assert axes == {"tokens": [100, 200, 400], "flops": [5, 6, 8], "hours": [0.5, 1.0, 2.5]}


def test_an_axis_with_gaps_is_none() -> None:
    history = {"train/loss": [4.0, 3.0], "tokens": [1, None], "flops": [1, 2]}
    curve = read_curve(history)
    assert curve is not None and list(curve.axes) == ["flops"]


def test_nothing_logged(tmp_path: Path) -> None:
    assert (
        mean_of_last(read_history(tmp_path)) is None
        and read_curve({}) is None
        and mean_of_last({"train/loss": [None]}) is None
    )
    assert mean_of_last(read_history(write(tmp_path, "stage,step,val/x\ns,1,2\n"))) is None


def test_final_loss_averages_the_last_steps(tmp_path: Path) -> None:
    rows = "".join(f"s,{step},{step}\n" for step in range(1, 101))
    expected = np.mean(range(101 - FINAL_STEPS, 101))
    assert mean_of_last(read_history(write(tmp_path, "stage,step,train/loss\n" + rows))) == expected


def test_smoothing_keeps_a_constant_and_the_length() -> None:
    curve = LossCurve(np.full(100, 2.5), {})
    np.testing.assert_allclose(curve.smoothed(), 2.5)
    assert LossCurve(np.arange(100.0), {}).smoothed()[10] == np.mean([8, 9, 10])
