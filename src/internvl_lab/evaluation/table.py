"""The end of a run on the terminal: scores by task, and where everything was written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from internvl_lab.evaluation.results import EvaluationResult, TaskResult

METRIC_NAMES = {"exact_match": "exact match", "iou_at_50": "IoU ≥ 0.5"}
"""Metric to its name in tables."""


def score_table(result: EvaluationResult) -> Table:
    """Lay out score, blind score, their difference and n of every task, the mean last."""
    table = Table(title="held-out scores")
    table.add_column("task")
    table.add_column("metric")
    for name in ("score", "blind", "gain", "n"):
        table.add_column(name, justify="right")
    for task in result.tasks:
        table.add_row(task.name, METRIC_NAMES.get(task.metric, task.metric), *score_cells(task))
    table.add_section()
    table.add_row("mean", "over tasks", *score_cells(result), style="bold")
    if (again := result.recompressed) is not None:
        quality = again.settings["jpeg_quality"]
        table.add_row("mean", f"over tasks, JPEG {quality}", *score_cells(again), style="bold")
    return table


def score_cells(result: TaskResult | EvaluationResult) -> tuple[str, str, str, str]:
    """Format score, blind, gain and n; a dash where there was no blind run."""
    blind = "-" if result.blind is None else f"{result.blind:.3f}"
    gain = "-" if result.blind is None else f"{result.score - result.blind:+.3f}"
    return f"{result.score:.3f}", blind, gain, str(result.n)


def show(result: EvaluationResult, paths: Mapping[str, Path], console: Console | None = None) -> None:
    """Write the table and the paths to the terminal.

    Args:
        result: scores of all tasks.
        paths: what to name each path, and the path.
        console: where to write; None is standard output.
    """
    console = console or Console()
    console.print(score_table(result))
    width = max((len(name) for name in paths), default=0)
    for name, path in paths.items():
        console.print(f"{name:<{width}}  {path}", soft_wrap=True, markup=False, highlight=False)
