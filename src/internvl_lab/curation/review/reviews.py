"""Remember who decided what: `reviews.jsonl`, one JSON object a decision, only ever appended to.

{"key", "decision": "keep" | "reject", "by", "at", "rules"}; the last line of a key counts, the others are its history.
Several reviewers, in terminals and pages, may write at once.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

logger = logging.getLogger(__name__)

REVIEWS = "reviews.jsonl"
KEEP, REJECT = "keep", "reject"


@dataclass(frozen=True)
class Decision:
    """Hold one person's decision about one sample."""

    key: str
    decision: str
    """`keep` or `reject`."""
    by: str
    at: str
    """Time in UTC, ISO 8601."""
    rules: tuple[str, ...] = ()
    """Rules that had rejected the sample."""

    def __post_init__(self) -> None:
        """Refuse a third way."""
        if self.decision not in (KEEP, REJECT):
            raise ValueError(f"decision {self.decision!r} must be {KEEP} or {REJECT}")


class ReviewLog:
    """Hold the decisions of a file, by key.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self.decisions: dict[str, Decision] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read what was appended since, by anyone; half a line is left for later, a broken one is logged."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                self._take(line)

    def add(self, key: str, decision: str, by: str, rules: Iterable[str]) -> Decision:
        """Append a decision; it is on disk when this returns."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        taken = Decision(key, decision, by, at, tuple(rules))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            _drop_torn_line(file.fileno())
            file.write(json.dumps(asdict(taken), ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.refresh()
        return taken

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            taken = Decision(**entry | {"rules": tuple(entry["rules"])})
        except (ValueError, LookupError, TypeError) as error:
            logger.warning("%s: a line is no decision and is skipped (%s)", self._path, error)
            return
        self.decisions[taken.key] = taken


def _drop_torn_line(file: int) -> None:
    """Cut off what a killed writer left behind the last newline."""
    size = position = os.fstat(file).st_size
    while position > 0:
        start = max(0, position - 4096)
        newline = os.pread(file, position - start, start).rfind(b"\n")
        position = start
        if newline >= 0:
            position = start + newline + 1
            break
    if position < size:
        os.ftruncate(file, position)
