"""One row of metrics per optimizer step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from lightning.pytorch.loggers import Logger

from internvl_lab.tracking import read_metrics
from internvl_lab.training import MetricsWriter, StageFreezing, loop_settings


class Memory(Logger):
    """Keep what is logged."""

    name = version = "memory"  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, Any]] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.calls.append(("row", (step, metrics["train/loss"])))

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        self.calls.append(("hyperparams", None))

    def begin_stage(self, stage: str, offset: int) -> None:
        self.calls.append(("begin", (stage, offset)))

    def cut_back(self, stage: str, step: int) -> None:
        self.calls.append(("cut", (stage, step)))


def test_every_logger_gets_a_row_per_step(tiny: ModuleType, run_dir: Path) -> None:
    import lightning as L

    memory = Memory()
    stage = tiny.tiny_stage(3)
    trainer = L.Trainer(
        **loop_settings(stage, 2, 1), accelerator="cpu", logger=[memory], enable_progress_bar=False,
        callbacks=[StageFreezing(stage), MetricsWriter(step_offset=50)], default_root_dir=run_dir,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(tiny.tiny_module(stage), datamodule=tiny.TinyData(3, 2))
    assert memory.calls[:2] == [("begin", ("stage2", 50)), ("cut", ("stage2", 0))]
    assert [call[1][0] for call in memory.calls if call[0] == "row"] == [1, 2, 3]


def test_rows_are_exact_python_numbers(tiny: ModuleType, run_dir: Path) -> None:
    """Lightning's own logging would have made float32 of them."""
    module = tiny.fit(run_dir, tiny.tiny_stage(2), tiny.TinyData(2, 1))
    assert read_metrics(run_dir)["train/loss"][-1] == module.metrics["train/loss"]
    assert module.metrics["train/loss"] != pytest.approx(0)
    assert isinstance(module.metrics["tokens"], int)
