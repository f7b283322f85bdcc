from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from internvl_lab.bench import timing
from internvl_lab.bench.timing import CpuClock, Reading, clock_for, interleave, median_peak_mib, one_thread, spread
from internvl_lab.errors import ConfigError

LINUX = Path("/proc/self/clear_refs").exists()


def test_one_thread_inside_as_before_outside() -> None:
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError), one_thread():
            assert torch.get_num_threads() == 1
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_interleave_takes_turns_and_starts_with_another_each_time() -> None:
    calls: list[str] = []

    def run_of(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    runs = {name: lambda name=name: run_of(name) for name in "abc"}
    readings = interleave(runs, repeats=3)
    assert "".join(calls) == "abcbcacab"
    assert [reading.value for reading in readings["a"]] == [1, 6, 8]
    assert all(reading.time_s >= 0 for of in readings.values() for reading in of)


def test_interleave_wants_a_repeat() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        interleave({"a": lambda: 0.0}, repeats=0)


@pytest.mark.skipif(not LINUX, reason="needs Linux' /proc")
def test_peak_is_that_of_this_run_alone() -> None:
    def fill(mib: int) -> float:
        return float(np.ones(mib << 17).sum())

    large, small = (CpuClock().measure(lambda mib=mib: fill(mib)) for mib in (64, 4))
    assert large.extra_peak_mib == pytest.approx(64, abs=8)
    assert small.extra_peak_mib is not None
    assert small.extra_peak_mib < 16  # the peak before it is forgotten


def test_without_proc_there_is_no_peak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(timing, "_CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    reading = CpuClock().measure(lambda: 2.0)
    assert reading.extra_peak_mib is reading.peak_mib is None
    assert reading.value == 2.0
    assert median_peak_mib([reading]) is None


def test_summaries() -> None:
    assert spread([3.0, 1.0, 8.0]) == {"median": 3.0, "min": 1.0, "max": 8.0}
    readings = [Reading(1, 10 * peak, peak, 0) for peak in (5.0, 1.0, 2.0)]
    assert (median_peak_mib(readings), median_peak_mib(readings, total=True)) == (2.0, 20.0)


def test_what_comes_before_a_reading_is_not_in_it() -> None:
    calls: list[str] = []
    runs = {name: lambda name=name: float(len(calls)) for name in "ab"}
    before = {name: lambda name=name: calls.append(name) for name in "ab"}
    readings = interleave(runs, repeats=2, before=before)
    assert "".join(calls) == "abba"
    assert [reading.value for reading in readings["a"]] == [1, 4]


@pytest.mark.parametrize("fails", ["run", "before"])
def test_a_variant_that_runs_out_of_memory_is_not_run_again_and_the_others_are(fails: str) -> None:
    calls: list[str] = []

    def work(name: str, fail: bool) -> float:
        calls.append(name)
        if fail and calls.count("b") >= 2:
            raise torch.OutOfMemoryError("no room")
        return 1.0

    runs = {name: lambda name=name: work(name, fails == "run" and name == "b") for name in "abc"}
    before = {name: lambda name=name: fails == "before" and work(name, name == "b") for name in "abc"}
    readings = interleave(runs, repeats=3, before=before)
    assert {name: len(of) for name, of in readings.items()} == {"a": 3, "b": 0, "c": 3}


class Event:
    """Stand in for a CUDA event: takes the number of what was queued before it."""

    queued = 0

    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = Event.queued

    def synchronize(self) -> None:
        Event.done = True

    def elapsed_time(self, end: Event) -> float:
        assert Event.done, "the host has to wait for the device before it reads"
        return 1000.0 * (end.at - self.at)


def test_a_gpu_is_timed_by_its_own_events_and_read_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    mib = 1 << 20
    memory = {"now": 3 * mib, "peak": 100 * mib}
    fakes = {
        "is_available": lambda: True,
        "current_device": lambda: 0,
        "synchronize": lambda device: None,
        "reset_peak_memory_stats": lambda device: memory.update(peak=memory["now"]),
        "memory_allocated": lambda device: memory["now"],
        "max_memory_allocated": lambda device: memory["peak"],
        "empty_cache": lambda: None,
        "Event": Event,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)

    class Value(float):
        def __float__(self) -> float:
            assert Event.done, "reading the loss inside the measured time waits for the device"
            return 2.5

    def run() -> float:
        Event.queued, Event.done = Event.queued + 4, False
        memory["peak"] = 10 * mib
        return Value()

    clock = clock_for("cuda")
    assert clock.device == torch.device("cuda", 0)
    assert clock.measure(run) == Reading(time_s=4.0, peak_mib=10.0, extra_peak_mib=7.0, value=2.5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="torch finds none"):
        clock_for("cuda")
    with pytest.raises(ConfigError, match="cpu, cuda"):
        clock_for("tpu")


@pytest.mark.gpu
def test_a_gpu_clock_counts_what_the_device_does() -> None:
    clock = clock_for("cuda")
    matrix = torch.randn(4096, 4096, device=clock.device)

    def products(count: int) -> torch.Tensor:
        return torch.stack([(matrix @ matrix).sum() for _ in range(count)]).sum()

    clock.measure(lambda: products(1))
    short, long = (clock.measure(lambda count=count: products(count)) for count in (1, 20))
    assert 5 < long.time_s / short.time_s < 60
    assert short.extra_peak_mib == pytest.approx(64, abs=48)  # the product, and cuBLAS' workspace
    assert torch.cuda.get_device_name() in clock.describe()


def test_device_is_described() -> None:
    described = timing.describe_device()
    assert described.startswith("cpu (")
    assert f"torch {torch.__version__}" in described
    assert "1 thread" in described
