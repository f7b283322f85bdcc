"""Scores as tables: one row a number on disk, one row an encoder and head for readers.

probe.csv       every score: encoder, seed, head, depth, target, test, n, accuracy, ema_accuracy, learning_rate, run
layerwise.csv   over the seeds: encoder, head, depth, target, test, mean, spread, seeds   (target `mean`: of all)

Where encoders come from several runs, the seeds are those of the runs: the seeds of the heads are averaged first.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from internvl_lab.atomic import write_atomic
from internvl_lab.probing.published import CLASSIFICATION, CLASSIFICATION_TESTS, SEGMENTATION, SEGMENTATION_TESTS
from internvl_lab.probing.score import Score

MEAN = "mean"
"""Target of the unweighted mean over the targets of one test."""
UNTRAINED = ("knn", "class_mean")
"""Heads without training, which have no seeds."""


@dataclass(frozen=True)
class Summary:
    """Hold one head's accuracy over the seeds of the runs, or with one run over those of the heads."""

    encoder: str
    head: str
    depth: int
    target: str
    test: str
    mean: float
    spread: float
    """Standard deviation over the seeds; 0 with one."""
    seeds: int


def summarise(scores: Sequence[Score]) -> list[Summary]:
    """Average over seeds; where a test has several targets, their mean is one more target."""
    groups: dict[tuple[str, str, int, str, str], dict[tuple[str, int], float]] = {}
    for s in scores:
        groups.setdefault((s.encoder, s.head, s.depth, s.target, s.test), {})[s.run, s.seed] = s.accuracy
    for encoder, head, depth, test in dict.fromkeys((k[0], k[1], k[2], k[4]) for k in groups):
        parts = [v for k, v in groups.items() if (k[0], k[1], k[2], k[4]) == (encoder, head, depth, test)]
        if len(parts) > 1:
            means = {trained: statistics.fmean(part[trained] for part in parts) for trained in parts[0]}
            groups[encoder, head, depth, MEAN, test] = means
    return [_summary(key, _independent(found)) for key, found in groups.items()]


def _independent(found: Mapping[tuple[str, int], float]) -> list[float]:
    """Return one value for each run, or with one run for each seed of its heads."""
    by_run: dict[str, list[float]] = {}
    for (run, _), value in found.items():
        by_run.setdefault(run, []).append(value)
    return [statistics.fmean(values) for values in by_run.values()] if len(by_run) > 1 else list(found.values())


def _summary(key: tuple[str, str, int, str, str], values: Sequence[float]) -> Summary:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return Summary(*key, statistics.fmean(values), spread, len(values))


def write_scores(path: Path, scores: Sequence[Score]) -> Path:
    """Write every score as CSV."""
    return _write(path, [field.name for field in fields(Score)], [asdict(score) for score in scores])


def write_summaries(path: Path, summaries: Sequence[Summary]) -> Path:
    """Write the means over the seeds as CSV."""
    return _write(path, [field.name for field in fields(Summary)], [asdict(summary) for summary in summaries])


def read_summaries(path: Path) -> list[Summary]:
    """Read what `write_summaries` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Summary(
                row["encoder"],
                row["head"],
                int(row["depth"]),
                row["target"],
                row["test"],
                float(row["mean"]),
                float(row["spread"]),
                int(row["seeds"]),
            )
            for row in csv.DictReader(file)
        ]


def _write(path: Path, names: Sequence[str], rows: Sequence[dict[str, object]]) -> Path:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.5f}" if isinstance(v, float) and k != "learning_rate" else v for k, v in row.items()})
    return write_atomic(path, buffer.getvalue())


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Render a markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def headline(summaries: Sequence[Summary]) -> list[Summary]:
    """Keep each encoder's last depth."""
    last: dict[str, int] = {}
    for s in summaries:
        last[s.encoder] = max(s.depth, last.get(s.encoder, 0))
    return [s for s in summaries if s.depth == last[s.encoder]]


def score_rows(summaries: Sequence[Summary]) -> tuple[list[str], list[list[str]]]:
    """Lay summaries of one depth out as the report does: an encoder and head a row, a test a column, average last.

    Returns:
        (head of the table, rows); the last column is the gain over the linear head of the same encoder.
    """
    several = len({s.test for s in summaries}) > 1
    shown = [s for s in summaries if s.target != MEAN or several]
    if several:  # one column a test: the mean over its targets, where it has several
        means = {s.test for s in shown if s.target == MEAN}
        shown = [s for s in shown if s.target == MEAN or s.test not in means]
    columns = list(dict.fromkeys(_column(s, several) for s in shown))
    rows, linear = [], dict[str, float]()
    for encoder, head in dict.fromkeys((s.encoder, s.head) for s in shown):
        cells = {_column(s, several): s for s in shown if (s.encoder, s.head) == (encoder, head)}
        known = [cells[c].mean for c in columns if not math.isnan(cells[c].mean)]
        average = statistics.fmean(known) if known else math.nan
        linear.setdefault(encoder, average) if head == "linear" else None
        gain = f"{100 * (average - linear[encoder]):+.1f}" if encoder in linear and head != "linear" else ""
        rows.append([encoder, head, *(_cell(cells[c]) for c in columns), f"{100 * average:.1f}", gain])
    return ["encoder", "head", *columns, "average", "Δ linear"], rows


def _column(summary: Summary, several: bool) -> str:
    return summary.test if several else summary.target


def _cell(summary: Summary) -> str:
    spread = f" ± {100 * summary.spread:.1f}" if summary.seeds > 1 else ""
    return f"{100 * summary.mean:.1f}{spread}"


def published_classification() -> str:
    """Render the report's own table of classification."""
    return _published(CLASSIFICATION, CLASSIFICATION_TESTS)


def published_segmentation() -> str:
    """Render the report's own table of segmentation."""
    return _published(SEGMENTATION, SEGMENTATION_TESTS)


def _published(rows: Mapping[str, Mapping[str, Sequence[float | None]]], tests: Sequence[str]) -> str:
    lines = []
    for encoder, heads in rows.items():
        for head, values in heads.items():
            gain = "" if head == "linear" else f"{(values[-1] or 0) - (heads['linear'][-1] or 0):+.1f}"
            lines.append([encoder, head, *("-" if v is None else f"{v:.1f}" for v in values), gain])
    return markdown(["encoder (published)", "head", *tests, "average", "Δ linear"], lines)
