"""Loss curves of runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from internvl_lab.scaling.curves import FINAL_STEPS, LossCurve, final_loss, read_loss


def write(folder: Path, text: str) -> Path:
    (folder / "metrics.csv").write_text(text)
    return folder


def test_loss_against_tokens_over_all_stages(tmp_path: Path) -> None:
    text = (
        "stage,step,tokens,train/loss\nstage1,1,100,4\nstage1,2,200,3\nstage1,3,300,nan\nstage2,1,400,2\nstage2,1,,\n"
    )
    curve = read_loss(write(tmp_path, text))
    assert curve is not None
    assert curve.tokens.tolist() == [100, 200, 400] and curve.losses.tolist() == [4, 3, 2]


def test_steps_stand_in_for_tokens(tmp_path: Path) -> None:
    curve = read_loss(write(tmp_path, "stage,step,train/loss\ns,1,4\ns,2,3\n"))
    assert curve is not None and curve.tokens.tolist() == [1, 2]


def test_nothing_logged(tmp_path: Path) -> None:
    assert read_loss(tmp_path) is None and final_loss(tmp_path) is None
    assert read_loss(write(tmp_path, "stage,step,val/x\ns,1,2\n")) is None


def test_final_loss_averages_the_last_steps(tmp_path: Path) -> None:
    rows = "".join(f"s,{step},{step}\n" for step in range(1, 101))
    expected = np.mean(range(101 - FINAL_STEPS, 101))
    assert final_loss(write(tmp_path, "stage,step,train/loss\n" + rows)) == expected


def test_smoothing_keeps_a_constant_and_the_length() -> None:
    curve = LossCurve(np.arange(100.0), np.full(100, 2.5))
    np.testing.assert_allclose(curve.smoothed(), 2.5)
    ramp = LossCurve(np.arange(100.0), np.arange(100.0))
    assert ramp.smoothed()[10] == np.mean([8, 9, 10])
