"""Losses by source."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from internvl_lab.data.batch import Batch
from internvl_lab.tracking import read_metrics


def test_sources_recombine_to_the_loss(tiny: ModuleType, run_dir: Path) -> None:
    module = tiny.fit(run_dir, tiny.tiny_stage(3), tiny.TinyData(3, 2))
    metrics = read_metrics(run_dir)
    assert set(module.last_step.source_losses) == {"alpha", "beta"}
    for step in range(3):
        weights = dict.fromkeys(tiny.SOURCES, 0.0)
        for pack in (2 * step, 2 * step + 1):
            batch = tiny.tiny_batch(pack)
            for sample, (start, end) in enumerate(zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True)):
                source = tiny.SOURCES[int(batch.source_ids[sample])]
                weights[source] += batch.loss_weights[0, start:end].sum().item()
        total = sum(weights[name] * metrics[f"train/loss/{name}"][step] for name in tiny.SOURCES)
        assert total / sum(weights.values()) == pytest.approx(metrics["train/loss"][step], rel=1e-9)


def test_an_absent_source_has_no_value(tiny: ModuleType, run_dir: Path) -> None:
    def make(pack: int) -> Batch:
        batch = tiny.tiny_batch(pack)
        batch.source_ids = torch.zeros_like(batch.source_ids)
        return batch

    tiny.fit(run_dir, tiny.tiny_stage(2), tiny.TinyData(2, 1, make))
    metrics = read_metrics(run_dir)
    assert metrics["train/loss/alpha"] == pytest.approx(metrics["train/loss"])
    assert "train/loss/beta" not in metrics
