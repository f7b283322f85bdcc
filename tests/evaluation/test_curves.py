"""Loss curves from metrics.csv."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from internvl_lab.evaluation.curves import draw_loss_curves, read_curves


def write(run_dir: Path, text: str) -> Path:
    run_dir.mkdir(exist_ok=True)
    (run_dir / "metrics.csv").write_text(text)
    return run_dir


def test_stages_follow_each_other(tmp_path: Path) -> None:
    run = write(tmp_path, "stage,step,train/loss\nstage1,1,3.5\nstage1,2,3\nstage2,1,2\nstage2,2,1.5\nstage2,3,1\n")
    first, second = read_curves(run)
    assert (first.stage, first.steps.tolist(), first.losses.tolist()) == ("stage1", [1, 2], [3.5, 3])
    assert (second.stage, second.steps.tolist(), second.losses.tolist()) == ("stage2", [3, 4, 5], [2, 1.5, 1])


def test_rows_without_a_loss_and_skipped_steps_are_left_out(tmp_path: Path) -> None:
    run = write(tmp_path, "stage,step,train/loss,val/x\ns,1,3,\ns,1,,0.5\ns,2,nan,\ns,3,inf,\ns,4,2,\n")
    (curve,) = read_curves(run)
    assert curve.steps.tolist() == [1, 4] and curve.losses.tolist() == [3, 2]


def test_nothing_logged(tmp_path: Path) -> None:
    assert read_curves(tmp_path) == []
    assert read_curves(write(tmp_path, "stage,step,val/x\ns,1,2\n")) == []


def test_the_plot_is_a_picture_with_shaded_stages(tmp_path: Path) -> None:
    rows = "".join(f"s{stage},{step},{5 - stage - step / 9}\n" for stage in (1, 2) for step in range(1, 9))
    image = Image.open(io.BytesIO(draw_loss_curves(read_curves(write(tmp_path, "stage,step,train/loss\n" + rows)))))
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert image.format == "PNG" and image.width >= 1000
    for shade in ("#eef3fb", "#fdf3e7"):
        colour = [int(shade[i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == colour).all(axis=1).sum() > 10_000
