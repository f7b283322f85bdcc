"""Write the report of benchmarks: the tables of the InternVL 2.5 report, ours beside the published rows.

::

    out/report.md               a table a capability, details of every task, settings
        metrics.json            {"overall": {"score", "blind", "n"}, "tasks": {...}, "seed"}; last, so it means complete
        tables/<capability>.csv the same tables for programs

Everything is computed from the logged answers and settings and holds no clock, so that a resumed evaluation writes the
same bytes as one that was never interrupted.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from internvl_lab.atomic import write_atomic
from internvl_lab.evaluation.benchmark import CAPABILITIES
from internvl_lab.evaluation.report import markdown_table
from internvl_lab.evaluation.scoring import Score, summarise

SIZES = ("1B", "2B", "4B", "8B", "26B", "38B", "78B")
DASH = "-"
SHOWN_ERRORS = 5
"""Skipped questions listed for each task."""


@dataclass(frozen=True)
class CapabilityTable:
    """Hold one table: models are rows, benchmarks columns, as in the report."""

    name: str
    title: str
    columns: tuple[str, ...]
    """Titles of the benchmarks."""
    rows: tuple[tuple[str, ...], ...]
    """Model, source (`this run` or `published`), then a figure or a dash for each benchmark."""


@cache
def published_scores() -> dict[str, dict[str, str]]:
    """Read the published figures of InternVL 2.5: benchmark -> size -> figure.

    Source: InternVL 2.5, tables 6 to 12; spec section 11.2.
    """
    text = resources.files("internvl_lab").joinpath("evaluation", "published.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(io.StringIO(text))
    return {row["benchmark"]: {size: row[size] for size in SIZES if row[size]} for row in rows}


def capability_tables(scores: Sequence[Score], model: str) -> list[CapabilityTable]:
    """Lay out one table for each capability that was evaluated, in the report's order.

    Args:
        scores: of all tasks.
        model: name of the evaluated checkpoint.
    """
    tables = []
    for name, title in CAPABILITIES.items():
        group = [score for score in scores if score.suite.capability == name]
        if group:
            ours = (model, "this run", *(show_figure(score.shown, score.decimals) for score in group))
            rows = [ours, *_published_rows(group)]
            tables.append(CapabilityTable(name, title, tuple(score.suite.title for score in group), tuple(rows)))
    return tables


def _published_rows(group: Sequence[Score]) -> list[tuple[str, ...]]:
    """Return the published row of each size that has a figure in one of the columns."""
    known = [published_scores().get(score.suite.published, {}) for score in group]
    return [
        (f"InternVL2.5-{size}", "published", *(column.get(size, DASH) for column in known))
        for size in SIZES
        if any(size in column for column in known)
    ]


def show_figure(value: float | None, decimals: int = 1) -> str:
    """Format a figure; a dash where there is none."""
    return DASH if value is None else f"{value:.{decimals}f}"


def write_benchmark_report(
    out: Path, scores: Sequence[Score], settings: Mapping[str, Any], model: str, seed: int
) -> dict[str, Path]:
    """Write report, tables and metrics.

    Args:
        out: folder of the evaluation.
        scores: of all tasks.
        settings: what all tasks have in common.
        model: name of the evaluated checkpoint.
        seed: of the evaluation.
    Returns:
        Name to path of everything written.
    """
    tables = capability_tables(scores, model)
    paths = {"report": out / "report.md", "metrics": out / "metrics.json", "predictions": out / "predictions"}
    for table in tables:
        paths[f"table {table.name}"] = write_atomic(out / "tables" / f"{table.name}.csv", _render_csv(table))
    write_atomic(paths["report"], render_benchmark_report(tables, scores, settings, model))
    metrics = {**summarise(scores), "seed": seed}
    write_atomic(paths["metrics"], json.dumps(metrics, indent=1, ensure_ascii=False) + "\n")
    return paths


def _render_csv(table: CapabilityTable) -> str:
    """Render a table as CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("model", "source", *table.columns))
    writer.writerows(table.rows)
    return buffer.getvalue()


def render_benchmark_report(
    tables: Sequence[CapabilityTable], scores: Sequence[Score], settings: Mapping[str, Any], model: str
) -> str:
    """Return the report as markdown."""
    parts = [f"# Evaluation of {model}", _introduction(scores)]
    for table in tables:
        grid = markdown_table(("model", "source", *table.columns), list(table.rows))
        parts.append(f"## {table.title}\n\n{grid}")
    parts += [_render_details(scores), *_render_skipped(scores), _render_settings(scores, settings)]
    return "\n\n".join(parts) + "\n"


def _introduction(scores: Sequence[Score]) -> str:
    """Say how the figures are to be read."""
    text = (
        "Greedy answers. Figures are in percent, MME and OCRBench in points; rows marked `published` are the InternVL "
        "2.5 report's own and were not measured here."
    )
    notes = [f"- {score.suite.title}: {score.suite.note}" for score in scores if score.suite.note]
    return "\n\n".join([text, "\n".join(notes)]) if notes else text


def _render_details(scores: Sequence[Score]) -> str:
    """Render a row a task: every score of its metric, counts, and the share of looping answers."""
    rows = [
        (
            score.suite.name,
            f"{score.suite.metric} ({score.judge})" if score.judge else score.suite.metric,
            ", ".join(f"{name} {value:.4g}" for name, value in score.scores.items()) or DASH,
            DASH if score.blind is None else f"{score.blind:.3f}",
            str(score.n),
            str(score.num_skipped),
            str(score.num_unscored),
            f"{100 * score.looping:.1f} %",
        )
        for score in scores
    ]
    head = ("task", "metric", "scores", "blind", "n", "skipped", "unscored", "looping")
    note = (
        "`n` answers are in the score; `skipped` questions could not be asked, `unscored` answers have no reference; "
        "`looping` is the share of answers that repeat themselves."
    )
    return f"## Details\n\n{markdown_table(head, rows)}\n\n{note}"


def _render_skipped(scores: Sequence[Score]) -> list[str]:
    """List the first questions of each task that could not be asked."""
    rows = [(score.suite.name, key, why) for score in scores for key, why in score.errors[:SHOWN_ERRORS]]
    return [f"## Left out\n\n{markdown_table(('task', 'question', 'why'), rows)}"] if rows else []


def _render_settings(scores: Sequence[Score], settings: Mapping[str, Any]) -> str:
    """List what produced the scores: what all tasks share, then each task's prompt and limits."""
    common = [f"- {name}: `{_text(value)}`" for name, value in settings.items()]
    rows = []
    for score in scores:
        own = score.settings
        benchmark = own.get("benchmark", {})
        rows.append(
            (
                score.suite.name,
                str(benchmark.get("prompt", "as in training")),
                DASH if own.get("max_tiles") is None else f"{own['max_tiles']} {own['tiles']}",
                str(own.get("max_new_tokens")),
                str(benchmark.get("num_frames") or DASH),
            )
        )
    grid = markdown_table(("task", "prompt", "tiles", "new tokens", "frames"), rows)
    return "## Settings\n\n" + "\n".join(common) + f"\n\n{grid}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
