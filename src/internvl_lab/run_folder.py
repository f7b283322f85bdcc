"""The folder of one run: where it lies, what is finished in it, how long it took.

outputs/<experiment>/<config hash>/
    config.yaml overrides.yaml identity.json     what ran (tracking.identity)
    stages/<stage>/                              checkpoints while it runs, weights and done.json after
    metrics.csv journal.jsonl quarantine.jsonl   what happened, appended over restarts
    report.md metrics.json *.png predictions/    what came out
    finished.json                                written last
outputs/latest -> the newest run
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from internvl_lab.atomic import write_atomic
from internvl_lab.errors import ConfigError

TICK_S = 2.0
WAIT_FOR_LOCK_S = 10.0
"""A killed run's loader workers may hold its lock for a moment longer than it."""

_claimed_process_start = threading.Event()


def _start_of_run() -> float:
    """Return the process's start for its first run (imports count), now for the next (Hydra multirun)."""
    if _claimed_process_start.is_set():
        return time.time()
    _claimed_process_start.set()
    return float(psutil.Process().create_time())


@dataclass
class RunFolder:
    """Give access to one run's files; nothing here knows what a run consists of."""

    path: Path
    started_s: float = field(default_factory=_start_of_run)
    """Start of this run in this process, seconds since the epoch."""

    @property
    def finished(self) -> bool:
        """Say whether the run has ended."""
        return (self.path / "finished.json").is_file()

    @property
    def result(self) -> dict[str, Any]:
        """Return what `finish` was given.

        Raises:
            FileNotFoundError: the run has not finished.
        """
        loaded: dict[str, Any] = json.loads((self.path / "finished.json").read_text(encoding="utf-8"))
        return loaded

    def open(self, fresh: bool, sources: Collection[Path] = ()) -> bool:
        """Create the folder, or empty it when `fresh`; return whether an unfinished run lies in it.

        Args:
            fresh: start anew.
            sources: weights and checkpoints that this run reads.
        Raises:
            ConfigError: `fresh` would delete a source of the run.
        """
        if fresh and self.path.exists():
            for source in sources:
                if source.resolve().is_relative_to(self.path.resolve()):
                    raise ConfigError(f"fresh=true would delete {source}, which this run starts from; copy it first")
            doomed = self.path.with_name(f".{self.path.name}.deleted-{os.getpid()}")
            self.path.rename(doomed)  # at once: a kill in the middle of deleting must not leave half a run
            shutil.rmtree(doomed)
        resumed = (self.path / "config.yaml").is_file()
        self.path.mkdir(parents=True, exist_ok=True)
        return resumed

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; the lock goes with the process, also when it is killed.

        Raises:
            ConfigError: another process holds it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + WAIT_FOR_LOCK_S
        with (self.path.parent / f".{self.path.name}.lock").open("w") as handle:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline:
                        raise ConfigError(f"another process is running {self.path}") from error
                    time.sleep(0.2)
            yield

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Note the elapsed time every two seconds, so that a kill loses little of it."""
        stop = threading.Event()

        def beat() -> None:
            """Write the elapsed time until told to stop."""
            while not stop.wait(TICK_S):
                with contextlib.suppress(OSError):
                    self._write_elapsed(time.time())

        thread = threading.Thread(target=beat, name="run-clock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def elapsed_s(self) -> float:
        """Return wall seconds over all starts of this run, this one included."""
        self._write_elapsed(time.time())
        return float(sum(self._sessions().values()))

    def finish(self, result: Mapping[str, Any]) -> None:
        """Mark the run as finished and point `latest` at it."""
        write_atomic(self.path / "finished.json", json.dumps(dict(result), indent=2) + "\n")
        self.link_latest()

    def link_latest(self) -> None:
        """Point `<output_dir>/latest` at this run."""
        latest = self.path.parent.parent / "latest"
        with contextlib.suppress(OSError):  # a file system without links loses the shortcut, not the run
            temporary = latest.with_name(f".latest-{os.getpid()}")
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(self.path.relative_to(latest.parent))
            temporary.replace(latest)

    def _sessions(self) -> dict[str, float]:
        path = self.path / "elapsed.json"
        if not path.is_file():
            return {}
        sessions: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
        return sessions

    def _write_elapsed(self, now: float) -> None:
        sessions = self._sessions() | {f"{self.started_s:.2f}": round(now - self.started_s, 2)}
        write_atomic(self.path / "elapsed.json", json.dumps(sessions))
