"""Write down samples that fail while training, and stop the run when there are too many."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from internvl_lab.atomic import write_atomic
from internvl_lab.errors import ShardError

logger = logging.getLogger(__name__)

MIN_JUDGED = 1000
"""The share of bad samples is taken of at least this many, so that one early fault does not stop a run."""


def too_many(num_bad: int, num_seen: int, max_share: float) -> bool:
    """Tell whether `num_bad` of `num_seen` samples exceed the share, taken of at least `MIN_JUDGED`."""
    return num_bad > max_share * max(num_seen, MIN_JUDGED)


def read_entries(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a JSONL file that name their stage; a torn last line is left out. No file gives no lines."""
    if not path.exists():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "stage" in entry:
            entries.append(entry)
    return entries


def to_lines(entries: Sequence[dict[str, Any]]) -> str:
    """Write entries as JSON lines."""
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


class QuarantineLog:
    """Append one JSON line per bad sample: {stage, key, shard, reason, detail, step}.

    Lives in the main process; the counts start anew with each process.

    Args:
        path: the file, usually `quarantine.jsonl` in the run folder; made when the first line comes.
        stage: name of the stage that reads; steps count from 0 in each.
        max_bad_share: share of samples that may be bad.
        max_bad_in_row: bad samples without a good one between them at which the run stops.
    """

    def __init__(self, path: Path, stage: str, max_bad_share: float, max_bad_in_row: int) -> None:
        self.path, self.stage = Path(path), stage
        self.max_bad_share, self.max_bad_in_row = max_bad_share, max_bad_in_row
        self.num_seen = self.num_bad = self.in_row = 0

    def record(
        self, planned: Sequence[tuple[str, str]], bad_samples: Sequence[tuple[str, str, str]], step: int
    ) -> None:
        """Account for one pack.

        Args:
            planned: (key, shard) of every sample that the plan put into the pack, in order.
            bad_samples: (key, reason, detail) of those that failed, in the same order.
            step: optimizer step that the pack belongs to.
        Raises:
            ShardError: too large a share or too many in a row are bad; names the last one.
        """
        bad = list(bad_samples)
        for key, shard in planned:
            self.num_seen += 1
            if not bad or bad[0][0] != key:
                self.in_row = 0
                continue
            _, reason, detail = bad.pop(0)
            self.num_bad, self.in_row = self.num_bad + 1, self.in_row + 1
            entry = {"stage": self.stage, "key": key, "shard": shard, "reason": reason, "detail": detail, "step": step}
            logger.warning("sample %(key)s in %(shard)s is left out: %(reason)s (%(detail)s)", entry)
            self._append(entry)
            self._judge(f"{key} in {shard}: {reason} ({detail})")

    def cut_back(self, step: int, later_stages: Collection[str] = ()) -> None:
        """Forget what a resumed run writes again: this stage from `step` on, and the stages after it.

        Lines of other stages stay; a torn last line goes.
        """
        if not self.path.exists():
            return
        entries = [entry for entry in read_entries(self.path) if entry["stage"] not in later_stages]
        kept = [entry for entry in entries if entry["stage"] != self.stage or entry["step"] < step]
        write_atomic(self.path, to_lines(kept))

    def leave_out(self, problems: Sequence[tuple[str, str, str, str]], step: int) -> None:
        """Write down sound samples that a stream leaves out because of the settings; they count as no fault.

        Args:
            problems: (shard, key, reason, detail) of each; the worker that found it has logged it.
            step: as in `record`.
        """
        for shard, key, reason, detail in problems:
            self._append(
                {"stage": self.stage, "key": key, "shard": shard, "reason": reason, "detail": detail, "step": step}
            )

    def _append(self, entry: dict[str, object]) -> None:
        """Append one line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(to_lines([entry]))

    def _judge(self, last: str) -> None:
        """Stop the run when the limits are passed."""
        if self.in_row >= self.max_bad_in_row:
            raise ShardError(f"{self.in_row} samples in a row cannot be read (data.max_bad_in_row); the last is {last}")
        if too_many(self.num_bad, self.num_seen, self.max_bad_share):
            raise ShardError(
                f"{self.num_bad} of {self.num_seen} samples cannot be read "
                f"(data.max_bad_share={self.max_bad_share}); the last is {last}"
            )
