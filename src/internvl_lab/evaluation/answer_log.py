"""Keep every answer as soon as it is given, so that a killed evaluation goes on where it stopped.

::

    predictions/<task>.settings.json    everything the answers depend on
    predictions/<task>.jsonl            one line a question, appended and flushed to the disk chunk by chunk

A kill may leave half a line or half a chunk. Both are dropped on restart: the same chunks are then formed again, so
that the answers, and the report, are the same bit for bit. Answers of other settings are set aside, never deleted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from internvl_lab.atomic import write_atomic

logger = logging.getLogger(__name__)

UNSTAMPED = ("revision",)
"""Settings that are recorded, but do not make old answers void."""

Line = dict[str, Any]


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Hash the settings that answers depend on; 10 hexadecimal digits."""
    stamped = {name: value for name, value in settings.items() if name not in UNSTAMPED}
    text = json.dumps(stamped, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


class AnswerLog:
    """Hold the answers of one task on disk.

    Args:
        folder: `predictions/`; made if missing.
        task: name of the files.
        settings: what the answers depend on; where the folder holds answers of others, these are renamed to
            `<task>.<hash>.jsonl` and the task starts anew.
        chunk_size: answers are appended so many at a time; an incomplete chunk at the end is dropped.
    """

    def __init__(self, folder: Path, task: str, settings: Mapping[str, Any], chunk_size: int) -> None:
        self.path = folder / f"{task}.jsonl"
        self.settings_path = folder / f"{task}.settings.json"
        self.stamp = settings_hash(settings)
        folder.mkdir(parents=True, exist_ok=True)
        old = self._stored_settings()
        if old is not None and settings_hash(old) != self.stamp:
            self._set_aside(settings_hash(old))
            old = None
        if old is None:
            text = json.dumps(dict(settings), indent=1, sort_keys=True, ensure_ascii=False, default=str)
            write_atomic(self.settings_path, text + "\n")
        self.settings: dict[str, Any] = self._stored_settings() or {}
        self.lines = self._recover(chunk_size)

    def append(self, lines: Sequence[Line]) -> None:
        """Write a chunk's lines and wait until the disk has them."""
        texts = [json.dumps(line, ensure_ascii=False) for line in lines]
        with self.path.open("ab") as stream:
            # half a surrogate pair becomes the \\uXXXX that it is in JSON
            stream.write("".join(f"{text}\n" for text in texts).encode(errors="backslashreplace"))
            stream.flush()
            os.fsync(stream.fileno())
        # as they would be read back, so that a run that was never killed scores the very same values
        self.lines += map(json.loads, texts)

    def _stored_settings(self) -> dict[str, Any] | None:
        """Return the settings of the answers on disk; None where there are none or they cannot be read."""
        try:
            stored = json.loads(self.settings_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return stored if isinstance(stored, dict) else None

    def _set_aside(self, stamp: str) -> None:
        """Rename the answers of other settings."""
        for path in (self.path, self.settings_path):
            if path.exists():
                ending = path.name.removeprefix(self.path.stem)
                path.rename(path.with_name(f"{self.path.stem}.{stamp}{ending}"))
        logger.info("%s: earlier answers were made with other settings and are kept as *.%s.*", self.path.stem, stamp)

    def _recover(self, chunk_size: int) -> list[Line]:
        """Read whole chunks of whole lines and cut the file behind them."""
        if not self.path.exists():
            return []
        lines: list[Line] = []
        ends = [0]
        for raw in self.path.read_bytes().splitlines(keepends=True):
            try:
                parsed = json.loads(raw) if raw.endswith(b"\n") else None
            except ValueError:
                parsed = None
            if not isinstance(parsed, dict) or parsed.get("settings", self.stamp) != self.stamp:
                break
            lines.append(parsed)
            ends.append(ends[-1] + len(raw))
        # the last chunk of a task is shorter, and complete if the line says so
        whole = len(lines) if lines and lines[-1].get("last") else len(lines) // chunk_size * chunk_size
        os.truncate(self.path, ends[whole])
        return lines[:whole]
