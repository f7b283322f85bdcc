"""Lightning's settings and the order of the callbacks."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import lightning as L
import pytest

from internvl_lab.config import CallbacksConfig
from internvl_lab.errors import ConfigError
from internvl_lab.training import StopSignals, accumulation_of, add_monitors, build_callbacks, loop_settings


def test_accumulation_shares_the_packs_out() -> None:
    assert accumulation_of(512, 8) == 64


def test_uneven_shares_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"packs_per_step=6 cannot be shared evenly by 4"):
        accumulation_of(6, 4)


def test_settings_leave_exactness_to_us(tiny: ModuleType) -> None:
    settings = loop_settings(tiny.tiny_stage(9), packs_per_step=8, world_size=2)
    assert settings["accumulate_grad_batches"] == 4
    assert settings["max_steps"] == 9
    assert settings["gradient_clip_val"] is None
    assert settings["enable_checkpointing"] is False
    assert settings["use_distributed_sampler"] is False


def test_monitors_come_before_the_writer_then_the_checkpoint_then_stopping(tiny: ModuleType, tmp_path: Path) -> None:
    stage = tiny.tiny_stage(9)
    callbacks = build_callbacks(
        stage,
        tiny.PACKING,
        tmp_path,
        tmp_path / "c",
        settings=CallbacksConfig(),
        signals=StopSignals(),
        journal=True,
        step_offset=5,
        totals={"tokens": 9},
    )
    assert [type(callback).__name__ for callback in callbacks] == [
        "Watchdog",
        "StageFreezing",
        "ThroughputMonitor",
        "PackMonitor",
        "SourceLossMonitor",
        "StageProgressBar",
        "MetricsWriter",
        "Journal",
        "StepCheckpoint",
        "StopOnRequest",
    ]
    assert callbacks[2].totals["tokens"] == 9
    assert callbacks[-2].every == stage.checkpoint_every
    assert callbacks[-1].checkpoint is callbacks[-2]
    off = CallbacksConfig(progress_bar=False, hang_timeout_s=None)
    bare = {
        type(callback).__name__ for callback in build_callbacks(stage, tiny.PACKING, tmp_path, tmp_path, settings=off)
    }
    assert not {"Journal", "StageProgressBar", "Watchdog", "StopOnRequest"} & bare


def test_further_monitors_come_between_the_clock_and_the_writer(tiny: ModuleType, tmp_path: Path) -> None:
    quiet = CallbacksConfig(progress_bar=False)
    monitor = L.Callback()
    callbacks = build_callbacks(tiny.tiny_stage(9), tiny.PACKING, tmp_path, tmp_path, settings=quiet)
    names = [type(callback).__name__ for callback in add_monitors(callbacks, [monitor])]
    assert names.index("ThroughputMonitor") < names.index("Callback") == names.index("MetricsWriter") - 1
    assert add_monitors(callbacks, []) == callbacks
