"""Decide about a record: scores and thresholds make verdicts, manual reviews overrule them.

scores ── thresholds, exempt sources ──> verdicts ──┐
scorers (LLM) ──> verdicts ─────────────────────────┼── any rejects? ── review of this key? ──> Decision
reviews.jsonl ──> {key: Review} ────────────────────┘
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from internvl_lab.config.curation import RulesConfig
from internvl_lab.curation.measure import Scores
from internvl_lab.curation.verdicts import Verdict
from internvl_lab.errors import ConfigError

REVIEW = "manual_review"
"""Rule that a person's rejection counts as."""


@dataclass(frozen=True)
class Review:
    """Hold what a person decided about one record."""

    keep: bool
    by: str
    at: str = ""


@dataclass(frozen=True)
class Decision:
    """Hold the outcome for one record."""

    keep: bool
    verdicts: tuple[Verdict, ...]
    """Of all rules that found something and have a say."""
    review: Review | None = None

    @property
    def fired(self) -> tuple[Verdict, ...]:
        """Return the verdicts that reject, the record being kept or not."""
        return tuple(verdict for verdict in self.verdicts if verdict.rejected)

    @property
    def by(self) -> str:
        """Say who decided: `rules`, or `review:NAME`."""
        return "rules" if self.review is None else f"review:{self.review.by}"


def judge_scores(scores: Scores, source: str, rules: RulesConfig) -> tuple[Verdict, ...]:
    """Compare scores with thresholds; rules that are off or exempt the source have no say."""
    verdicts = []
    for name, finding in scores.items():
        rule = getattr(rules, name)
        if rule.enabled and not rule.exempts(source):
            rejected = finding.score > rule.threshold
            verdicts.append(Verdict(name, finding.score, rule.threshold, rejected, finding.detail))
    return tuple(verdicts)


def decide(key: str, verdicts: Iterable[Verdict], reviews: Mapping[str, Review]) -> Decision:
    """Put verdicts and the review of this record together; a person has the last word."""
    verdicts, review = tuple(verdicts), reviews.get(key)
    if review is None:
        return Decision(not any(verdict.rejected for verdict in verdicts), verdicts)
    if not review.keep:
        verdicts += (Verdict(REVIEW, 1.0, 0.0, True, f"rejected by {review.by}"),)
    return Decision(review.keep, verdicts, review)


def read_reviews(path: Path) -> dict[str, Review]:
    """Read `reviews.jsonl`: {"key", "decision": "keep" or "reject", "by", "at", ...} a line; a key's last one wins.

    A torn last line, which a killed review leaves, is left out.

    Raises:
        ConfigError: no such file, or a line is no review; names it.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise ConfigError(f"--reviews {path} cannot be read: {error.strerror}") from error
    reviews: dict[str, Review] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            choice = {"keep": True, "reject": False}[entry["decision"]]
            reviews[str(entry["key"])] = Review(choice, str(entry.get("by", "")), str(entry.get("at", "")))
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise ConfigError(f"--reviews {path}:{number} is no review with `key` and `decision`: {error!r}") from error
    return reviews
