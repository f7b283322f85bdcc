"""Count what curation decides: the numbers and examples that the report shows, in memory that does not grow."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from internvl_lab.config.curation import RulesConfig
from internvl_lab.curation.decisions import Decision
from internvl_lab.curation.items import Item
from internvl_lab.curation.measure import Scores
from internvl_lab.curation.rules import UNITS

NUM_EXAMPLES = 5
"""Worst examples of a rule that the report shows."""
SHARE_BINS, COUNT_BINS = 20, 25
"""Bins of a histogram: equal ones for shares, half octaves for counts."""
SHARES = ("share", "similarity")


@dataclass(order=True)
class Example:
    """Hold one of a rule's worst examples; the order is by score, then the earlier record."""

    score: float
    minus_number: int
    item: Item = field(compare=False)
    detail: str = field(compare=False)
    keep: bool = field(compare=False)


@dataclass
class SourceTally:
    """Count one source."""

    records: int = 0
    kept: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    """Rule to rejected records that it fired on."""


@dataclass
class RuleTally:
    """Count one rule."""

    fired: int = 0
    """Records on which it fired."""
    alone: int = 0
    """Records on which no other rule fired."""
    histogram: Counter[int] = field(default_factory=Counter)
    """Bin to records; those of score 0 are left out."""
    worst: list[Example] = field(default_factory=list)
    """A heap, the mildest of the worst first."""


class Tally:
    """Count all records, in order."""

    def __init__(self) -> None:
        self.sources: dict[str, SourceTally] = {}
        self.rules: dict[str, RuleTally] = {}
        self.reviewed: Counter[str] = Counter()
        """Decision of a person (`keep`, `reject`) to records."""

    @property
    def num_records(self) -> int:
        """Count the records."""
        return sum(source.records for source in self.sources.values())

    @property
    def num_kept(self) -> int:
        """Count the records kept."""
        return sum(source.kept for source in self.sources.values())

    def add(self, item: Item, scores: Scores, decision: Decision) -> None:
        """Count one record."""
        source = self.sources.setdefault(item.source.name, SourceTally())
        number = self.num_records
        source.records, source.kept = source.records + 1, source.kept + decision.keep
        if decision.review is not None:
            self.reviewed["keep" if decision.keep else "reject"] += 1
        by_scorers = {verdict.rule: verdict.score for verdict in decision.verdicts if verdict.rule not in scores}
        for name, score in ({name: finding.score for name, finding in scores.items()} | by_scorers).items():
            self.rules.setdefault(name, RuleTally()).histogram[bin_of(name, score)] += 1
        for verdict in decision.fired:
            rule = self.rules.setdefault(verdict.rule, RuleTally())
            rule.fired += 1
            rule.alone += len(decision.fired) == 1
            if not decision.keep:
                source.rules[verdict.rule] += 1
            example = Example(verdict.score, -number, item, verdict.detail, decision.keep)
            if len(rule.worst) < NUM_EXAMPLES:
                heapq.heappush(rule.worst, example)
            else:
                heapq.heappushpop(rule.worst, example)

    def summary(self, rules: RulesConfig) -> dict[str, Any]:
        """Return all counts with the settings they come from, as plain containers."""
        settings = dict(rules)
        return {
            "records": self.num_records,
            "kept": self.num_kept,
            "rejected": self.num_records - self.num_kept,
            "reviewed": dict(sorted(self.reviewed.items())),
            "sources": {
                name: {"records": s.records, "kept": s.kept, "rules": dict(sorted(s.rules.items()))}
                for name, s in self.sources.items()
            },
            "rules": {
                name: {
                    "unit": UNITS.get(name, "score"),
                    "threshold": settings[name].threshold if name in settings else None,
                    "enabled": settings[name].enabled if name in settings else True,
                    "fired": self.rules[name].fired if name in self.rules else 0,
                    "alone": self.rules[name].alone if name in self.rules else 0,
                }
                for name in [*UNITS, *sorted(set(self.rules) - set(UNITS))]
            },
        }


def bin_of(rule: str, score: float) -> int:
    """Return the bin of a score in the rule's histogram."""
    if not math.isfinite(score):
        return 0
    if UNITS.get(rule) in SHARES:
        return min(SHARE_BINS - 1, int(score * SHARE_BINS))
    return min(COUNT_BINS - 1, int(2 * math.log2(1 + max(0.0, score))))


def lower_edge(rule: str, number: int) -> float:
    """Return the smallest score of a bin."""
    return number / SHARE_BINS if UNITS.get(rule) in SHARES else 2 ** (number / 2) - 1
