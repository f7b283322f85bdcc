"""The command `fit`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from internvl_lab.cli import main


def write_study(path: Path, flops: bool = True) -> Path:
    """Write a planted table: 4 x 4 sizes of language model and data, one failed row, one encoder."""
    lines = ["label,status,params_vision,params_language,tokens,val_loss,flops"]
    for n in np.geomspace(1e6, 1e8, 4):
        for d in np.geomspace(1e7, 1e9, 4):
            loss = 0.5 + 60 * n**-0.37 + 400 * d**-0.45
            lines.append(f"{n:.0f}/{d:.0f},done,300000,{n},{d},{loss},{6 * n * d if flops else ''}")
    lines.append("lost,failed,300000,1e6,1e7,,")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_laws_are_printed_written_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = write_study(tmp_path / "study.csv")
    out = tmp_path / "out"
    command = ["fit", str(study), "--json", str(out / "law.json"), "--plot", str(out), "--draws", "5"]
    assert main([*command, "--budget", "1e15", "1e18"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "L = E + B·Nl^-b + C·D^-c for val_loss, from 16 runs" in shown
    assert "held-out largest ones by 0.0" in shown and "Left out: 1 run failed." in shown
    assert "params_vision is 300,000 in all runs" in shown and "1e+18" in shown
    read = json.loads((out / "law.json").read_text())
    assert read["all_runs"]["parameters"]["b"]["value"] == pytest.approx(0.37, rel=1e-3)
    assert [best["flops"] for best in read["frontier"]] == [1e15, 1e18]
    assert (out / "law.png").stat().st_size > 10_000 and (out / "frontier.png").stat().st_size > 10_000


def test_without_flops_there_is_no_frontier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = write_study(tmp_path / "study.csv", flops=False)
    assert main(["fit", str(study), "--axes", "language", "--draws", "2"]) == 0
    captured = capsys.readouterr()
    assert "compute-optimal" not in captured.out and "no frontier: axis vision was left out" in captured.err
    assert main(["fit", str(study), "--budget", "1e15", "--draws", "2"]) == 2
    assert capsys.readouterr().err.startswith("error: no run has a value of 'flops'")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--axes", "depth"], "unknown axis 'depth'"),
        (["--loss", "train_loss"], "no run has a value of 'train_loss'"),
        (["--draws", "1"], "--draws 1 must be at least 2"),
    ],
)
def test_what_cannot_be_fitted_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], problem: str
) -> None:
    assert main(["fit", str(write_study(tmp_path / "study.csv")), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {problem}") and error.count("\n") == 1
