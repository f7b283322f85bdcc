"""Keep every paid answer on disk, so that no call is paid twice, whatever is killed and whenever.

```
answers  key -> text, tokens, cost        one row an answer, for ever
calls    id  -> number, cost              a call that is under way or ended without an answer that arrived
```
A call is written down before it is sent, at the highest price it can have, and leaves `calls` in the transaction that
stores its answers. So after a kill what is in flight stays charged, and the budget's bound holds over any number of
runs. A commit (SQLite, write-ahead log) outlives the process at once, and a power cut after `SYNC_EVERY_S`: to wait for
the disk at each commit bounded a busy machine to 55 calls a second, now 2,900.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from internvl_lab.errors import JudgeError
from internvl_lab.text.judging.judge import Question, Reply

_SETTINGS = """
PRAGMA locking_mode = EXCLUSIVE; -- one run at a time; and the log needs no shared memory, which network disks lack
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
"""
_SCHEMA = """
BEGIN IMMEDIATE; -- takes the lock, which stays until the file is closed or its process ends
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, text TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, answer_tokens INTEGER NOT NULL,
    is_complete INTEGER NOT NULL, cost REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS calls ( -- AUTOINCREMENT: else the id of a call that just ended goes to another thread's
    id INTEGER PRIMARY KEY AUTOINCREMENT, number INTEGER NOT NULL, cost REAL NOT NULL
);
COMMIT;
"""
SYNC_EVERY_S = 1.0
_MOST_VARIABLES = 500
"""Keys of one look-up; SQLite takes at least 999."""


def answer_key(identity: str, question: Question) -> str:
    """Hash everything that an answer depends on: the judge and its settings, the prompt, the text and the pictures."""
    parts = [identity, question.system, question.text, *question.images]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class AnswerStore:
    """Hold answers and what they cost; threads may share it, others may not have it open at the same time.

    Args:
        path: the SQLite file; it is made, with its folder, where it is missing.
    Raises:
        JudgeError: it is open already, here or in another process, or is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._guard, self._synced = threading.Lock(), 0.0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=0, check_same_thread=False, isolation_level=None)
        try:
            self._db.executescript(_SETTINGS + _SCHEMA)
        except sqlite3.DatabaseError as error:
            self._db.close()
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise JudgeError(f"{path} is in use: wait for the other run, or choose another cache") from error
            raise JudgeError(f"{path} cannot be used as a cache of answers: {error}") from error

    def close(self) -> None:
        """Close the file and let other processes have it."""
        self._db.close()

    def look_up(self, keys: Iterable[str]) -> dict[str, Reply]:
        """Return the answers that are there."""
        wanted, found = list(keys), dict[str, Reply]()
        for start in range(0, len(wanted), _MOST_VARIABLES):
            part = wanted[start : start + _MOST_VARIABLES]
            places = ",".join("?" * len(part))
            query = f"SELECT key, text, prompt_tokens, answer_tokens, is_complete FROM answers WHERE key IN ({places})"
            with self._guard:
                rows = self._db.execute(query, part).fetchall()
            found.update({key: Reply(text, asked, said, bool(whole)) for key, text, asked, said, whole in rows})
        return found

    def totals(self) -> tuple[int, float]:
        """Return (calls that were or may be charged, their cost) over the life of the file."""
        query = (
            "SELECT (SELECT COUNT(*) FROM answers) + (SELECT COALESCE(SUM(number), 0) FROM calls), "
            "(SELECT COALESCE(SUM(cost), 0) FROM answers) + (SELECT COALESCE(SUM(cost), 0) FROM calls)"
        )
        with self._guard:
            calls, cost = self._db.execute(query).fetchone()
        return int(calls), float(cost)

    def open_call(self, number: int, cost: float) -> int:
        """Write down a call of `number` questions before it is sent; returns its id."""
        with self._guard:
            call = self._db.execute("INSERT INTO calls (number, cost) VALUES (?, ?)", (number, cost)).lastrowid
        assert call is not None
        return call

    def close_call(self, call: int, answers: Mapping[str, tuple[Reply, float]]) -> None:
        """Replace a call by the answers it brought, key to (reply, cost); by none where nothing was charged."""
        rows = [
            (key, reply.text, reply.prompt_tokens, reply.answer_tokens, reply.is_complete, cost)
            for key, (reply, cost) in answers.items()
        ]
        with self._guard:
            now = time.monotonic()
            if sync := now >= self._synced + SYNC_EVERY_S:
                self._db.execute("PRAGMA synchronous = FULL")  # this commit takes the earlier ones to the disk with it
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._db.execute("DELETE FROM calls WHERE id = ?", (call,))
            self._db.execute("COMMIT")
            if sync:
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._synced = now
