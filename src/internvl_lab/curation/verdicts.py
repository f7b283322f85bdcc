"""What curation passes around: a record as the rules see it, and the verdict of one rule about one record.

Heuristic rules, duplicate search and LLM scorers all end in verdicts, so that the decision, the report and the manual
review need to know only these two classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Verdict:
    """Say what one rule or scorer found in one record."""

    rule: str
    """Name of the rule or scorer, for example `repeated_ngrams` or `quality`."""
    score: float
    """What was measured, in the rule's unit."""
    threshold: float
    """Limit that was applied."""
    rejected: bool
    detail: str = ""
    """What was found: short, for a person."""


@dataclass(frozen=True)
class CurationRecord:
    """Hold one record as rules and scorers see it."""

    key: str
    """Stable: source + ":" + record id or line number."""
    source: str
    raw: dict[str, Any]
    """The authors' JSONL record, untouched."""
    turns: tuple[tuple[str, str], ...]
    """(role, text) in order; a role is system, human or gpt."""
    images: tuple[str, ...]
    """Paths or member names."""
    has_media: bool


class Scorer(Protocol):
    """Judge records in batches, for example with a language model."""

    name: str

    def score(self, records: Sequence[CurationRecord]) -> list[list[Verdict]]:
        """Return one list of verdicts a record, in the same order."""
        ...
