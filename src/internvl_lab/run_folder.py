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
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from internvl_lab.atomic import write_atomic

TICK_S = 2.0


@dataclass
class RunFolder:
    """Give access to one run's files; nothing here knows what a run consists of."""

    path: Path
    started_s: float = field(default_factory=lambda: psutil.Process().create_time())
    """Start of this process, seconds since the epoch: imports count as run time."""
    _last_tick_s: float = 0.0

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

    def open(self, fresh: bool) -> bool:
        """Create the folder, or empty it when `fresh`; return whether an unfinished run lies in it."""
        if fresh and self.path.exists():
            shutil.rmtree(self.path)
        resumed = (self.path / "config.yaml").is_file()
        self.path.mkdir(parents=True, exist_ok=True)
        return resumed

    def tick(self) -> None:
        """Note the time this process has run, at most every two seconds, so that a kill loses little of it."""
        now = time.time()
        if now - self._last_tick_s >= TICK_S:
            self._last_tick_s = now
            self._write_elapsed(now)

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
