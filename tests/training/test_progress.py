"""The progress bar, and what replaces it without a terminal."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import ModuleType

import lightning as L
import pytest

from internvl_lab.training import MetricsWriter, StageFreezing, StageProgressBar, ThroughputMonitor, loop_settings
from internvl_lab.training.progress import step_figures


def train(tiny: ModuleType, run_dir: Path, bar: StageProgressBar, steps: int, packs: int = 1) -> None:
    """Train with a progress bar."""
    stage = tiny.tiny_stage(steps)
    trainer = L.Trainer(
        **loop_settings(stage, packs, 1), accelerator="cpu", logger=False, default_root_dir=run_dir,
        callbacks=[StageFreezing(stage), ThroughputMonitor(), bar, MetricsWriter()], enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(tiny.tiny_module(stage), datamodule=tiny.TinyData(steps, packs))


def test_without_a_terminal_some_twenty_lines_are_logged(
    tiny: ModuleType, run_dir: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, logger="internvl_lab.training.progress"):
        train(tiny, run_dir, StageProgressBar(terminal=False), steps=45)
    lines = [r.getMessage() for r in caplog.records if r.name.endswith("progress")]
    assert 20 <= len(lines) <= 24
    assert re.match(r"stage2  step 2/45  loss \d\.\d{4}  tokens/s [\d,]+  tiles/s [\d,.]+", lines[0])
    assert lines[-1].startswith("stage2  step 45/45")
    assert "\x1b" not in capsys.readouterr().out


def test_a_terminal_gets_a_bar_that_counts_steps(
    tiny: ModuleType, run_dir: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="internvl_lab.training.progress"):
        train(tiny, run_dir, StageProgressBar(terminal=True), steps=3, packs=2)
    shown = capsys.readouterr().out
    assert "stage2" in shown
    assert "3/3" in shown
    assert "loss:" in shown
    assert not [r for r in caplog.records if r.name.endswith("progress")]


def test_standard_output_of_a_test_is_no_terminal() -> None:
    assert not StageProgressBar().is_enabled


def test_figures_are_short_and_only_those_known() -> None:
    metrics = {"train/loss": 1.23456, "perf/tokens_per_s": 12345.6, "data/pack_fill_tokens": 0.954, "other": 1.0}
    assert step_figures(metrics) == {"loss": "1.2346", "tokens/s": "12,346", "fill": "95%"}
