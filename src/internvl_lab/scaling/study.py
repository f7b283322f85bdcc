"""Run the rows of a study, each in a process of its own, and keep one table that survives kills.

::

    rows ─ skip those that study.csv has as done ─ command(row) in its own session ─ finished.json ─> study.csv
                                                     └ fails: once more, then `failed`, and the study goes on

A row's run resumes by itself when it is started again, so a killed study loses nothing but the time to restart.
Where a child dies with its parent (Linux), a killed study leaves no run behind that would disturb the next start.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import IO

from internvl_lab.errors import ConfigError, InternVLLabError
from internvl_lab.scaling.rows import Row
from internvl_lab.scaling.table import DONE, FAILED, RowResult, read_run, read_table, write_table

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 2
LOG_FOLDER = "logs"
LONGEST_ERROR = 300
STOP_S = 60.0
"""Seconds that a row gets to finish its step when the study is stopped."""
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Becomes the command in argv[2:], unless the parent in argv[1] is already gone."""


def run_study(
    rows: Sequence[Row],
    command: Callable[[Row], list[str]],
    study_dir: Path,
    *,
    run_dir: Callable[[Row], Path],
    revision: str = "",
    env: Mapping[str, str] | None = None,
    jobs: int = 1,
    slots: Sequence[Mapping[str, str]] = (),
) -> list[RowResult]:
    """Run all rows that are not done, `jobs` at a time, in order.

    Args:
        rows: from `expand`; labels are unique.
        command: program and arguments that run one row to its `finished.json`, or resume it.
        study_dir: gets `study.csv` and `logs/<row>.log`.
        run_dir: where a row's run leaves `finished.json` and `metrics.csv`.
        revision: code revision noted beside each row that runs now.
        env: environment of the runs; None = this process's.
        jobs: rows that run side by side, at least 1.
        slots: what each of the `jobs` places adds to the environment, such as its own GPUs; empty = nothing.
    Returns:
        One result a row, in order; `all_done` says whether the study succeeded.
    Raises:
        ConfigError: another process runs this study, or `jobs` is below 1.
    """
    if jobs < 1:
        raise ConfigError(f"jobs={jobs} must be at least 1")
    study_dir.mkdir(parents=True, exist_ok=True)
    with _only_process(study_dir):
        known = read_table(study_dir)
        results = [next((r for r in known if r.belongs_to(row)), RowResult.pending(row)) for row in rows]
        titles = [f"row {number}/{len(rows)} {row.label}" for number, row in enumerate(rows, 1)]
        processes, lock = _Processes(os.environ if env is None else env, slots or [{}] * jobs), threading.Lock()

        def work(number: int) -> None:
            """Run one row to its end, and keep what came of it."""
            row, log = rows[number], _log_path(study_dir, rows[number])
            logger.info("%s: runs, log in %s", titles[number], log)
            started = replace(results[number], revision=revision)
            result = _run_row(row, started, command(row), run_dir(row), log, processes)
            with lock:
                if processes.stopping:
                    return  # cut short, not failed
                results[number] = result
                write_table(study_dir, results)
                logger.info("%s: %s", titles[number], _outcome(result))

        _run_side_by_side(work, _to_do(rows, results, titles), jobs, processes)
        write_table(study_dir, results)
    return results


def _to_do(rows: Sequence[Row], results: list[RowResult], titles: Sequence[str]) -> list[int]:
    """List the rows that have to run, and forget what they left before."""
    numbers = []
    for number, row in enumerate(rows):
        if results[number].status == DONE:
            logger.info("%s: done before%s", titles[number], _scored(results[number]))
        else:
            results[number] = RowResult.pending(row)
            numbers.append(number)
    return numbers


def _run_side_by_side(work: Callable[[int], None], numbers: Sequence[int], jobs: int, processes: _Processes) -> None:
    """Run rows in `jobs` threads, which only wait for their processes.

    Whatever interrupts this (Ctrl-C, SystemExit) ends all processes first; a stop by signal lets them save their step.
    """
    with ThreadPoolExecutor(jobs, thread_name_prefix="row") as pool:
        futures = [pool.submit(work, number) for number in numbers]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException as reason:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.stop(STOP_S if isinstance(reason, SystemExit) else 0.0)
            raise


def all_done(results: Sequence[RowResult]) -> bool:
    """Say whether every row is done; otherwise the study's exit status is not zero."""
    return all(result.status == DONE for result in results)


def _run_row(
    row: Row, result: RowResult, command: list[str], run_dir: Path, log: Path, processes: _Processes
) -> RowResult:
    """Run one row, a second time if it fails."""
    for attempt in range(1, MAX_ATTEMPTS + 1):
        result = replace(result, attempts=attempt, run_dir=str(run_dir))
        try:
            status = processes.run(command, log)
            if status != 0:
                raise InternVLLabError(f"exit status {status}: {_last_line(log)}")
            return read_run(result, run_dir)
        except (InternVLLabError, OSError) as error:
            reason = " ".join(str(error).split())[:LONGEST_ERROR]
            result = replace(result, status=FAILED, error=reason)
            logger.warning("%s: attempt %d of %d failed: %s", row.label, attempt, MAX_ATTEMPTS, reason)
        if processes.stopping:
            break
    return result


class _Processes:
    """Run commands in sessions of their own, from several threads, and end them all when the study is stopped.

    Args:
        env: their environment.
        slots: what each place adds to it; no two commands hold one place at once.
    """

    def __init__(self, env: Mapping[str, str], slots: Sequence[Mapping[str, str]]) -> None:
        self.env = dict(env)
        self.stopping = False
        self._slots: SimpleQueue[Mapping[str, str]] = SimpleQueue()
        for slot in slots:
            self._slots.put(slot)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def run(self, command: list[str], log: Path) -> int:
        """Run a command to its end, its output appended to a log; return its exit status.

        Whatever ends the wait ends the whole process group.

        Raises:
            InternVLLabError: the study is being stopped.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            output.write(f"\n# {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(command)}\n".encode())
            output.flush()
            slot = self._slots.get()
            try:
                return self._wait(self._start(command, output, slot))
            finally:
                self._slots.put(slot)

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the end of a process, and of whatever it started."""
        try:
            return process.wait()
        finally:
            _kill_group(process)
            with self._lock:
                self._running.discard(process)

    def _start(self, command: list[str], output: IO[bytes], slot: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a command, unless `stop` was called."""
        with self._lock:
            if self.stopping:
                raise InternVLLabError("the study was stopped")
            process = subprocess.Popen(
                _dying_with_parent(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=self.env | dict(slot),
            )
            self._running.add(process)
            return process

    def stop(self, patience_s: float) -> None:
        """Start nothing more, and end all that runs; asked first, where there is patience, to save its step."""
        with self._lock:
            self.stopping = True
            running = list(self._running)
        for process in running if patience_s else ():
            process.terminate()
        deadline = time.monotonic() + patience_s
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            _kill_group(process)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and whatever it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _dying_with_parent(command: list[str]) -> list[str]:
    """Wrap a command so that the kernel kills it when this process dies; unchanged where there is no such call.

    The request survives `exec`. It is made by a short program, because code between fork and exec is unsafe
    in a process with threads.
    """
    if sys.platform != "linux":
        return command
    return [sys.executable, "-c", _LAUNCHER, str(os.getpid()), *command]


@contextlib.contextmanager
def _only_process(study_dir: Path) -> Iterator[None]:
    """Hold the study's lock; the kernel frees it when this process dies.

    Raises:
        ConfigError: another process holds it.
    """
    with (study_dir / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"the study in {study_dir} is being run by another process") from error
        yield


def _log_path(study_dir: Path, row: Row) -> Path:
    """Return the log of a row's process."""
    return study_dir / LOG_FOLDER / f"{row.slug}.log"


def _last_line(log: Path) -> str:
    """Return the last line a process wrote: with Python, the error."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return "no output" if lines[-1].startswith("# ") else lines[-1].strip()


def _outcome(result: RowResult) -> str:
    """Say in one line how a row ended."""
    return f"done{_scored(result)}" if result.status == DONE else f"failed: {result.error}"


def _scored(result: RowResult) -> str:
    """Add the score, where the run was evaluated."""
    return "" if result.score is None else f", score {result.score:.3f}"
