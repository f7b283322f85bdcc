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
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

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
) -> list[RowResult]:
    """Run all rows that are not done, one after the other.

    Args:
        rows: from `expand`; labels are unique.
        command: program and arguments that run one row to its `finished.json`, or resume it.
        study_dir: gets `study.csv` and `logs/<row>.log`.
        run_dir: where a row's run leaves `finished.json` and `metrics.csv`.
        revision: code revision noted beside each row that runs now.
        env: environment of the runs; None = this process's.
    Returns:
        One result a row, in order; `all_done` says whether the study succeeded.
    Raises:
        ConfigError: another process runs this study.
    """
    study_dir.mkdir(parents=True, exist_ok=True)
    with _only_process(study_dir):
        known = read_table(study_dir)
        results = [next((r for r in known if r.belongs_to(row)), RowResult.pending(row)) for row in rows]
        for number, row in enumerate(rows):
            title = f"row {number + 1}/{len(rows)} {row.label}"
            if results[number].status == DONE:
                logger.info("%s: done before%s", title, _scored(results[number]))
                continue
            logger.info("%s: runs, log in %s", title, _log_path(study_dir, row))
            started = replace(RowResult.pending(row), revision=revision)
            results[number] = _run_row(row, started, command(row), run_dir(row), _log_path(study_dir, row), env)
            write_table(study_dir, results)
            logger.info("%s: %s", title, _outcome(results[number]))
        write_table(study_dir, results)
    return results


def all_done(results: Sequence[RowResult]) -> bool:
    """Say whether every row is done; otherwise the study's exit status is not zero."""
    return all(result.status == DONE for result in results)


def _run_row(
    row: Row, result: RowResult, command: list[str], run_dir: Path, log: Path, env: Mapping[str, str] | None
) -> RowResult:
    """Run one row, a second time if it fails."""
    for attempt in range(1, MAX_ATTEMPTS + 1):
        result = replace(result, attempts=attempt, run_dir=str(run_dir))
        try:
            status = _run_process(command, log, env)
            if status != 0:
                raise InternVLLabError(f"exit status {status}: {_last_line(log)}")
            return read_run(result, run_dir)
        except (InternVLLabError, OSError) as error:
            reason = " ".join(str(error).split())[:LONGEST_ERROR]
            result = replace(result, status=FAILED, error=reason)
            logger.warning("%s: attempt %d of %d failed: %s", row.label, attempt, MAX_ATTEMPTS, reason)
    return result


def _run_process(command: list[str], log: Path, env: Mapping[str, str] | None) -> int:
    """Run a command in its own session, its output appended to a log; return its exit status.

    Whatever ends this process's wait (Ctrl-C, SystemExit) ends the whole process group; a stop by signal is passed on.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        output.write(f"\n# {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(command)}\n".encode())
        output.flush()
        process = subprocess.Popen(
            _dying_with_parent(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=None if env is None else dict(env),
        )
        try:
            return process.wait()
        except SystemExit:  # a signal asked the study to stop: the row saves its step first
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            raise
        finally:
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
