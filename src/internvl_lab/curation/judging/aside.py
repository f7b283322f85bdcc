"""Keep aside what could not be scored: `unparsed.jsonl`, one JSON object a record and scorer.

{"key", "scorer", "reason", "answer"}; `answer` is what the judge said, null where it said nothing.
A record that is scored in a later run leaves the file when it is closed.
"""

from __future__ import annotations

import json
from pathlib import Path

from internvl_lab.atomic import write_atomic

UNPARSED = "unparsed.jsonl"


class AsideLog:
    """Hold records without a score; every entry is in the file at once, also after a kill.

    Args:
        path: the file; entries of earlier runs are taken over, half a line at its end is dropped.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[tuple[str, str], dict[str, str | None]] = {}
        *lines, torn = path.read_text(encoding="utf-8").split("\n") if path.is_file() else [""]
        for entry in map(json.loads, lines):
            self._entries[entry["key"], entry["scorer"]] = entry
        self._rewrite = bool(torn)
        self._flush()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def __len__(self) -> int:
        """Count the entries."""
        return len(self._entries)

    def add(self, key: str, scorer: str, reason: str, answer: str | None) -> None:
        """Put a record aside; the same entry again changes nothing."""
        entry = {"key": key, "scorer": scorer, "reason": reason, "answer": answer}
        known = self._entries.get((key, scorer))
        if known == entry:
            return
        self._rewrite |= known is not None
        self._entries[key, scorer] = entry
        self._file.write(_line(entry))
        self._file.flush()

    def resolve(self, key: str, scorer: str) -> None:
        """Take out a record that has its score now."""
        if self._entries.pop((key, scorer), None) is not None:
            self._rewrite = True

    def close(self) -> None:
        """Close the file, and write it anew where entries have changed or gone."""
        self._file.close()
        self._flush()

    def _flush(self) -> None:
        if self._rewrite:
            write_atomic(self._path, "".join(map(_line, self._entries.values())))
            self._rewrite = False


def _line(entry: dict[str, str | None]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"
