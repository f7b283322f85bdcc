"""Time and memory of one run: a clock per kind of device, variants interleaved.

| device | clock                                | what it leaves out                                                |
|--------|--------------------------------------|-------------------------------------------------------------------|
| CPU    | process CPU time of one thread       | the neighbours on a shared machine                                |
| GPU    | CUDA events around the queued work   | nothing: a host too slow to keep the queue full costs time too    |

Two CPU threads under contention gave fp32 timings that were wrong by a factor of five to ten, and wall time measures
the neighbours; process CPU time of one thread does neither. On a GPU the host only queues work, so that a timer of the
host would stop too early: events are time stamps that the device itself takes. Interleaving makes all variants meet
the same clock rates and caches. Source: research notes, training engine, header and section E; torch's `cuda.Event`.
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
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from internvl_lab.errors import ConfigError

DEVICES = ("cpu", "cuda")

_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""What to write into `clear_refs` so that VmHWM starts again at the present size. Source: proc_pid_clear_refs(5)."""
_MIB = 1 << 20

Run = Callable[[], float | Tensor]
"""Does the work once and returns a number, or () on the device, which the clock reads once it has stopped."""


@dataclass(frozen=True)
class Reading:
    """Hold one run's figures."""

    time_s: float
    """Seconds of the clock."""
    peak_mib: float | None
    """Most memory in use during the run; None where Linux' /proc is missing."""
    extra_peak_mib: float | None
    """The same, less what was in use before."""
    value: float
    """What the run returned: its loss."""


class Clock(Protocol):
    """Measure runs on one kind of device."""

    device: torch.device
    name: str
    """Written beside the times."""

    def describe(self) -> str:
        """Name the device and torch's version."""

    def session(self) -> AbstractContextManager[None]:
        """Set the process up for as long as it measures."""

    def release(self) -> None:
        """Give unused memory back, so that a run does not hide its peak in another one's leavings."""

    def measure(self, run: Run) -> Reading:
        """Run once and read time and memory."""


class CpuClock:
    """Read process CPU time and resident memory, with one thread."""

    device = torch.device("cpu")
    name = "process CPU time, 1 thread"

    def describe(self) -> str:
        """Name processor, threads and torch version, and how loaded the machine was when asked."""
        cpuinfo = Path("/proc/cpuinfo")
        lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        processor = models[0] if models else platform.processor() or platform.machine()
        load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        return f"cpu ({processor}), {torch.get_num_threads()} thread, torch {torch.__version__}, {load}"

    def session(self) -> AbstractContextManager[None]:
        """Compute with one thread."""
        return one_thread()

    def release(self) -> None:
        """Give freed memory back to the system."""
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim is not None:
            trim(0)

    def measure(self, run: Run) -> Reading:
        """Run once and read CPU time and resident memory."""
        self.release()
        before = _resident_mib("VmRSS") if _reset_peak() else None
        started = time.process_time()
        value = float(run())
        time_s = time.process_time() - started
        if before is None:
            return Reading(time_s, None, None, value)
        peak = _resident_mib("VmHWM")
        return Reading(time_s, peak, max(0.0, peak - before), value)


class CudaClock:
    """Read CUDA events on the current stream, and what torch's allocator handed out.

    Raises:
        ConfigError: there is no such device.
    """

    name = "CUDA events"

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise ConfigError(
                "--device cuda needs an NVIDIA GPU and a CUDA build of torch, and torch finds none; use --device cpu"
            )
        self.device = torch.device("cuda", torch.cuda.current_device())

    def describe(self) -> str:
        """Name the GPU and the versions of torch and CUDA."""
        return f"{torch.cuda.get_device_name(self.device)}, torch {torch.__version__}, CUDA {torch.version.cuda}"

    def session(self) -> AbstractContextManager[None]:
        """Leave the process as it is: the host must be free to queue."""
        return nullcontext()

    def release(self) -> None:
        """Give cached blocks back to the driver."""
        gc.collect()
        torch.cuda.empty_cache()

    def measure(self, run: Run) -> Reading:
        """Run once between two events; waits before the first and after the second, never in between."""
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        started, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        started.record()
        value = run()
        ended.record()
        ended.synchronize()
        peak = torch.cuda.max_memory_allocated(self.device)
        time_s = started.elapsed_time(ended) / 1000  # it counts milliseconds
        return Reading(time_s, peak / _MIB, (peak - before) / _MIB, float(value))


def clock_for(device: str) -> Clock:
    """Return the clock of a device, `cpu` or `cuda`.

    Raises:
        ConfigError: an unknown device, or one that is not there.
    """
    if device not in DEVICES:
        raise ConfigError(f"--device {device} must be one of {', '.join(DEVICES)}")
    return CpuClock() if device == "cpu" else CudaClock()


def describe_device() -> str:
    """Describe the CPU, for measurements that run nowhere else."""
    return CpuClock().describe()


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread inside, with as many as before outside."""
    previous = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


def interleave(
    runs: Mapping[str, Run],
    repeats: int,
    clock: Clock | None = None,
    before: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, list[Reading]]:
    """Measure each run `repeats` times, in turns; each repeat starts with another one.

    Args:
        runs: variant name to what runs it once.
        repeats: readings of each variant, at least 1.
        clock: measures; None = the CPU's.
        before: variant name to what is done before each of its readings, outside the measured time.
    Returns:
        Name to its readings; none for a variant that ran out of memory, which is not run again.
    Raises:
        ValueError: repeats below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats} must be at least 1")
    clock = clock or CpuClock()
    names = list(runs)
    order = [names[(turn + first) % len(names)] for first in range(repeats) for turn in range(len(names))]
    readings: dict[str, list[Reading]] = {name: [] for name in names}
    failed: set[str] = set()
    console = Console(stderr=True)
    gc.collect()
    for name in track(order, "measuring", console=console, transient=True, disable=not sys.stderr.isatty()):
        if name in failed:
            continue
        try:
            if before is not None:
                before[name]()
            readings[name].append(clock.measure(runs[name]))
        except torch.OutOfMemoryError:
            failed.add(name)
        if name in failed:  # outside of the handler, whose traceback keeps the tensors alive
            readings[name].clear()
            clock.release()
    return readings


def spread(values: Sequence[float]) -> dict[str, float]:
    """Summarise repeats: median, smallest, largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def median_peak_mib(readings: Sequence[Reading], total: bool = False) -> float | None:
    """Return the median of the extra peak memory, or of the whole; None where it was not measured."""
    read = [reading.peak_mib if total else reading.extra_peak_mib for reading in readings]
    peaks = [peak for peak in read if peak is not None]
    return statistics.median(peaks) if peaks else None


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
