"""Cumulative counters and rates."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from internvl_lab.models.devices import DEVICES
from internvl_lab.tracking import read_metrics
from internvl_lab.training import ThroughputMonitor
from internvl_lab.training.throughput import device_peak


def test_counters_are_sums_over_packs(tiny: ModuleType, run_dir: Path) -> None:
    tiny.fit(run_dir, tiny.tiny_stage(5), tiny.TinyData(5, 2))
    metrics = read_metrics(run_dir)
    packs = [tiny.tiny_batch(k) for k in range(10)]
    steps = [packs[2 * s : 2 * s + 2] for s in range(5)]

    def cumulative(count: dict[int, float]) -> list[float]:
        return [sum(list(count.values())[: s + 1]) for s in range(5)]

    tokens = cumulative({s: sum(b.num_tokens for b in step) for s, step in enumerate(steps)})
    assert metrics["tokens"] == tokens
    assert metrics["flops"] == [1000.0 * t for t in tokens]
    assert metrics["tiles"] == cumulative({s: sum(b.num_tiles for b in step) for s, step in enumerate(steps)})
    assert metrics["samples"] == cumulative({s: sum(len(b.sample_keys) for b in p) for s, p in enumerate(steps)})
    assert all(isinstance(value, int) for value in metrics["tokens"])


def test_rates_are_counts_over_time(tiny: ModuleType, run_dir: Path) -> None:
    tiny.fit(run_dir, tiny.tiny_stage(3), tiny.TinyData(3, 1))
    metrics = read_metrics(run_dir)
    tokens = [tiny.tiny_batch(k).num_tokens for k in range(3)]
    for count, rate, seconds in zip(tokens, metrics["perf/tokens_per_s"], metrics["perf/step_s"], strict=True):
        assert rate == pytest.approx(count / seconds)


def test_waiting_for_data_is_measured_and_validation_is_no_step_time(tiny: ModuleType, run_dir: Path) -> None:
    def slow(pack: int) -> object:
        time.sleep(0.2 if pack >= 10_000 else 0.03)
        return tiny.tiny_batch(pack)

    settings = {"val_check_interval": 1, "check_val_every_n_epoch": None}
    tiny.fit(run_dir, tiny.tiny_stage(4), tiny.TinyData(4, 1, slow, val_packs=2), **settings)
    metrics = read_metrics(run_dir)
    waits = [value for value in metrics["perf/data_wait_s"] if value is not None]
    steps = [value for value in metrics["perf/step_s"] if value is not None]
    assert min(waits) >= 0.03
    assert min(steps[1:]) < 0.4, "two validation packs take 0.4 s"
    assert all(wait <= step for wait, step in zip(waits, steps, strict=True))


def test_next_stage_goes_on_from_the_totals(tiny: ModuleType) -> None:
    monitor = ThroughputMonitor({"tokens": 100, "flops": 1.5, "samples": 3, "tiles": 2})
    assert monitor.totals == {"tokens": 100, "samples": 3, "tiles": 2, "flops": 1.5}
    other = ThroughputMonitor()
    other.load_state_dict(monitor.state_dict())
    assert other.totals == monitor.totals


def test_mfu_needs_the_peak(tiny: ModuleType, run_dir: Path) -> None:
    stage, data = tiny.tiny_stage(2), tiny.TinyData(2, 1)
    trainer = tiny.build(run_dir, stage, data)
    monitor = next(c for c in trainer.callbacks if isinstance(c, ThroughputMonitor))
    monitor.peak_flops = 1e6
    module = tiny.tiny_module(stage)
    trainer.fit(module, datamodule=data)
    metrics = read_metrics(run_dir)
    flops = 1000.0 * tiny.tiny_batch(1).num_tokens
    assert metrics["perf/mfu"][1] == pytest.approx(flops / (metrics["perf/step_s"][1] * 1e6))


@pytest.fixture
def forget() -> Iterator[None]:
    device_peak.cache_clear()
    yield
    device_peak.cache_clear()


@pytest.mark.usefixtures("forget")
def test_without_a_known_peak_there_is_no_mfu_and_it_is_said_once(
    tiny: ModuleType, run_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert [device_peak("cpu", True) for _ in range(3)] == [None] * 3
    assert [record.message for record in caplog.records] == ["perf/mfu is not logged: no peak is known for cpu"]
    tiny.fit(run_dir, tiny.tiny_stage(1), tiny.TinyData(1, 1))
    assert "perf/mfu" not in read_metrics(run_dir)


@pytest.mark.usefixtures("forget")
def test_the_peak_is_that_of_the_running_gpu_in_half_precision(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    assert device_peak("cuda", True) == DEVICES["h200"].peak_bf16_flops
    with caplog.at_level("INFO"):
        assert device_peak("cuda", False) is None
        device_peak.cache_clear()
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Voodoo 2")
        assert device_peak("cuda", True) is None
    assert "half precision" in caplog.records[0].message and "Voodoo 2" in caplog.records[1].message
