from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from internvl_lab.bench import timing
from internvl_lab.bench.timing import Reading, interleave, measure, median_peak_mib, one_thread, spread

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
    assert all(reading.cpu_s >= 0 for of in readings.values() for reading in of)


def test_interleave_wants_a_repeat() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        interleave({"a": lambda: 0.0}, repeats=0)


@pytest.mark.skipif(not LINUX, reason="needs Linux' /proc")
def test_peak_is_that_of_this_run_alone() -> None:
    def fill(mib: int) -> float:
        return float(np.ones(mib << 17).sum())

    large, small = measure(lambda: fill(64)), measure(lambda: fill(4))
    assert large.extra_peak_mib == pytest.approx(64, abs=8)
    assert small.extra_peak_mib is not None
    assert small.extra_peak_mib < 16  # the peak before it is forgotten


def test_without_proc_there_is_no_peak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(timing, "_CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    reading = measure(lambda: 2.0)
    assert reading.extra_peak_mib is None
    assert reading.value == 2.0
    assert median_peak_mib([reading]) is None


def test_summaries() -> None:
    assert spread([3.0, 1.0, 8.0]) == {"median": 3.0, "min": 1.0, "max": 8.0}
    assert median_peak_mib([Reading(1, peak, 0) for peak in (5.0, 1.0, 2.0)]) == 2.0


def test_device_is_described() -> None:
    described = timing.describe_device()
    assert described.startswith("cpu (")
    assert f"torch {torch.__version__}" in described
    assert "1 thread" in described
