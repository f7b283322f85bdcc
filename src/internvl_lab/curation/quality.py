"""Measure the rules on the labelled set: recall of the planted faults, precision of what is rejected.

write_planted(seed) ── curate at default thresholds ──> decisions + labels ──> Quality ──> curation_rules.csv
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from internvl_lab.config.curation import CurationConfig
from internvl_lab.curation.pipeline import curate
from internvl_lab.curation.planted import LANGUAGES, Size, write_planted
from internvl_lab.curation.rules import UNITS

TUNING_SEED, HELD_OUT_SEED = 0, 1
"""Thresholds were chosen on the first; the second is what is reported."""
COLUMNS = ("kind", "name", "records", "rejected", "recall", "precision")


@dataclass(frozen=True)
class Quality:
    """Hold the outcome on one labelled set."""

    seed: int
    records_of: Counter[str]
    """Fault ("" = clean) to records."""
    rejected_of: Counter[str]
    """Fault to rejected records."""
    fired_on: dict[str, Counter[str]]
    """Rule to fault to records on which it fired."""
    missed: tuple[str, ...]
    wrong: tuple[str, ...]
    """Keys of faulty records kept, and of clean ones rejected."""

    @property
    def recall(self) -> float:
        """Return the share of faulty records that were rejected."""
        faulty = self.records_of.total() - self.records_of[""]
        return (self.rejected_of.total() - self.rejected_of[""]) / faulty

    def recall_of(self, rule: str) -> float:
        """Return the share of faulty records on which one rule fires."""
        fired = self.fired_on[rule]
        return (fired.total() - fired[""]) / (self.records_of.total() - self.records_of[""])

    def precision_of(self, rule: str) -> float | None:
        """Return the share of faulty ones among the records on which one rule fires; None if it never does."""
        fired = self.fired_on[rule]
        return 1 - fired[""] / fired.total() if fired else None

    @property
    def precision(self) -> float:
        """Return the share of rejected records that are faulty."""
        return 1 - self.rejected_of[""] / self.rejected_of.total()


def measure_quality(folder: Path, seed: int = HELD_OUT_SEED, workers: int = 1, size: Size | None = None) -> Quality:
    """Plant a set in `folder`, curate it at default thresholds, and compare."""
    folder = Path(folder)
    write_planted(folder / "planted", seed, size)
    config = CurationConfig(languages=LANGUAGES)
    curate(folder / "planted" / "meta.json", folder / "curated", config, workers=workers, progress=False)
    labels = {line["key"]: line["fault"] for line in _lines(folder / "planted" / "labels.jsonl")}
    decisions = {line["key"]: line for line in _lines(folder / "curated" / "decisions.jsonl")}
    fired_on: dict[str, Counter[str]] = {name: Counter() for name in UNITS}
    for key, line in decisions.items():
        for rule in line["rules"]:
            fired_on[rule][labels[key]] += 1
    rejected = {key for key, line in decisions.items() if not line["keep"]}
    return Quality(
        seed,
        Counter(labels.values()),
        Counter(labels[key] for key in rejected),
        fired_on,
        tuple(key for key, fault in labels.items() if fault and key not in rejected),
        tuple(key for key, fault in labels.items() if not fault and key in rejected),
    )


def quality_csv(quality: Quality) -> str:
    """Write the table: all rules together, each rule, each fault.

    A rule's recall is its share of all faulty records, its precision that of the records on which it fires.
    """
    faulty = quality.records_of.total() - quality.records_of[""]
    rows: list[tuple[object, ...]] = [
        ("together", f"seed {quality.seed}", quality.records_of.total(), quality.rejected_of.total(),
         round(quality.recall, 4), round(quality.precision, 4)),
        ("clean", "clean", quality.records_of[""], quality.rejected_of[""], "", ""),
    ]  # fmt: skip
    for rule, fired in quality.fired_on.items():
        precision = quality.precision_of(rule)
        shown = "" if precision is None else round(precision, 4)
        rows.append(("rule", rule, faulty, fired.total(), round(quality.recall_of(rule), 4), shown))
    for fault, count in sorted(quality.records_of.items()):
        if fault:
            found = quality.rejected_of[fault]
            rows.append(("fault", fault, count, found, round(found / count, 4), ""))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([COLUMNS, *rows])
    return buffer.getvalue()


def _lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
