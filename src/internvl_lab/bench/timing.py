"""Time and memory of one run on a shared CPU: one thread, process CPU time, variants interleaved.

Two threads under contention gave fp32 timings that were wrong by a factor of five to ten, and wall time measures the
neighbours; process CPU time of one thread does neither. Interleaving makes all variants meet the same clock rates and
caches. Source: research notes, training engine, header and section E.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""What to write into `clear_refs` so that VmHWM starts again at the present size. Source: proc_pid_clear_refs(5)."""


@dataclass(frozen=True)
class Reading:
    """Hold one run's figures."""

    cpu_s: float
    """CPU time of the process."""
    extra_peak_mib: float | None
    """Largest resident memory during the run, less the one before it; None where Linux' /proc is missing."""
    value: float
    """What the run returned: its loss."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread inside, with as many as before outside."""
    previous = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


def measure(run: Callable[[], float]) -> Reading:
    """Run once and read CPU time and memory."""
    _trim_memory()
    before = _resident_mib("VmRSS") if _reset_peak() else None
    started = time.process_time()
    value = run()
    cpu_s = time.process_time() - started
    return Reading(cpu_s, None if before is None else max(0.0, _resident_mib("VmHWM") - before), value)


def interleave(runs: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[Reading]]:
    """Measure each run `repeats` times, in turns; each repeat starts with another one.

    Args:
        runs: variant name to what runs it once.
        repeats: readings of each variant, at least 1.
    Raises:
        ValueError: repeats below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats} must be at least 1")
    names = list(runs)
    order = [names[(turn + first) % len(names)] for first in range(repeats) for turn in range(len(names))]
    readings: dict[str, list[Reading]] = {name: [] for name in names}
    console = Console(stderr=True)
    gc.collect()
    for name in track(order, "measuring", console=console, transient=True, disable=not sys.stderr.isatty()):
        readings[name].append(measure(runs[name]))
    return readings


def spread(values: Sequence[float]) -> dict[str, float]:
    """Summarise repeats: median, smallest, largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def median_peak_mib(readings: Sequence[Reading]) -> float | None:
    """Return the median of the extra peak memory; None where it was not measured."""
    peaks = [reading.extra_peak_mib for reading in readings if reading.extra_peak_mib is not None]
    return statistics.median(peaks) if peaks else None


def describe_device() -> str:
    """Name processor, threads and torch version, and how loaded the machine was when asked."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.processor() or platform.machine()
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    return f"cpu ({processor}), {torch.get_num_threads()} thread, torch {torch.__version__}, {load}"


def _trim_memory() -> None:
    """Give freed memory back to the system, so that a run does not hide its peak in another one's leavings."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


def _reset_peak() -> bool:
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return True


def _resident_mib(field: str) -> float:
    """Read a size of this process (`VmRSS`, `VmHWM`) from /proc."""
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"{_STATUS} has no {field}")
