"""The command `compare`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from internvl_lab.cli import main
from internvl_lab.tracking import CsvLog, build_wandb, read_offline_runs


def make_run(folder: Path, loss: float) -> Path:
    """Log a run in plain files and in W&B."""
    config = {"seed": 1, "model": {"vision": {"name": "small", "num_hidden_layers": 1}}}
    wandb = build_wandb(folder, {}, config)
    assert wandb is not None
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for log in (CsvLog(folder), wandb):
        for step in (1, 2, 3):
            log.log_metrics({"train/loss": loss / step, "tokens": 10.0 * step, "flops": 1e9 * step}, step)
    wandb.finish()
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("outputs") / "experiment"
    return [make_run(folder / name, loss) for name, loss in (("aaa", 2.0), ("bbb", 0.7))]


def test_folders_and_offline_wandb_make_the_same_table(
    tmp_path: Path, runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    plain, offline = tmp_path / "plain", tmp_path / "offline"
    assert main(["compare", *map(str, runs), "--out", str(plain), "--title", "Two runs"]) == 0
    assert "Two runs" in capsys.readouterr().out
    assert main(["compare", str(runs[0].parent), "--out", str(offline), "--title", "Two runs"]) == 0
    numbers = (plain / "comparison.csv").read_bytes()
    assert b"\naaa,done,,,1.0,30.0,3000000000.0," in numbers
    assert numbers == (offline / "comparison.csv").read_bytes()
    assert (plain / "loss.png").read_bytes() == (offline / "loss.png").read_bytes()


def test_push_offline_keeps_a_run_beside_the_report(tmp_path: Path, runs: list[Path]) -> None:
    """WANDB_MODE=offline is set for all tests; without it the same run goes to the service."""
    out = tmp_path / "out"
    assert main(["compare", *map(str, runs), "--out", str(out), "--push", "me/lab", "--title", "Both"]) == 0
    (logged,) = read_offline_runs(out)
    assert (logged.name, logged.job_type) == ("Both", "compare")


def test_an_unknown_source_or_baseline_is_one_line(
    tmp_path: Path, runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "is no run: expected study.csv" in capsys.readouterr().err
    assert main(["compare", str(runs[0]), "--baseline", "zzz", "--out", str(tmp_path / "out")]) == 2
    assert "baseline 'zzz' is no row of the study; rows: aaa" in capsys.readouterr().err
