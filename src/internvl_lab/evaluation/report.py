"""Write what a run leaves behind for its readers.

::

    run_dir/report.md            scores, settings, pictures by relative path
            metrics.json         {"overall": {"score", "blind", "n"}, "tasks": {name: ...}, "looping", "seed", ...}
            contact_sheet.png    pictures, questions, answers
            loss_curves.png      training loss by stage (left out when nothing was trained)
            predictions/         one JSONL a task (written by the runner)

Every file appears complete or not at all; `metrics.json` is last, so its presence means a finished report.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from internvl_lab.atomic import write_atomic
from internvl_lab.evaluation.contact_sheet import draw_contact_sheet, show_question
from internvl_lab.evaluation.curves import draw_loss_curves, read_curves
from internvl_lab.evaluation.results import EvaluationResult
from internvl_lab.evaluation.table import METRIC_NAMES, score_cells

LONGEST_CELL = 120
"""Characters of an answer shown in a table of the report."""


def write_report(
    run_dir: Path,
    result: EvaluationResult,
    *,
    train_s: float | Callable[[], float],
    seed: int,
    title: str = "InternVL 2.5",
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Path]:
    """Write report, metrics and pictures.

    Args:
        run_dir: created if missing; its `metrics.csv` gives the loss curves.
        result: from `evaluate`; its settings are listed in the report.
        train_s: wall seconds of the run so far, or a clock that is read when the pictures are done.
        seed: the run's seed.
        title: heading of the report.
        settings: further settings to list: checkpoint, versions, revision.
    Returns:
        Name to path of everything written, for the terminal.
    """
    paths: dict[str, Path] = {"report": run_dir / "report.md", "metrics": run_dir / "metrics.json"}
    if result.examples:
        sheet = io.BytesIO()
        draw_contact_sheet(result.examples).save(sheet, format="PNG")
        paths["contact sheet"] = write_atomic(run_dir / "contact_sheet.png", sheet.getvalue())
    if curves := read_curves(run_dir):
        paths["loss curves"] = write_atomic(run_dir / "loss_curves.png", draw_loss_curves(curves))
    if (run_dir / "predictions").is_dir():
        paths["predictions"] = run_dir / "predictions"
    seconds = round(train_s() if callable(train_s) else train_s, 1)
    listed = {"seed": seed, "train_s": seconds, **(settings or {}), **result.settings}
    write_atomic(paths["report"], render_report(title, result, listed, paths))
    metrics = {**result.metrics(), "train_s": seconds, "seed": seed}
    write_atomic(paths["metrics"], json.dumps(metrics, indent=1) + "\n")
    return paths


def render_report(title: str, result: EvaluationResult, settings: Mapping[str, Any], paths: Mapping[str, Path]) -> str:
    """Return the report as markdown; pictures are embedded by their names beside it."""
    parts = [f"# {title}", _render_scores(result)]
    if skipped := _render_skipped(result):
        parts.append(skipped)
    for name in ("loss curves", "contact sheet"):
        if name in paths:
            parts.append(f"## {name.capitalize()}\n\n![{name}]({paths[name].name})")
    if result.examples:
        parts.append(_render_examples(result))
    parts.append(_render_settings(settings))
    return "\n\n".join(parts) + "\n"


def _render_scores(result: EvaluationResult) -> str:
    """Render the table of scores and how to read it."""
    rows = [("**mean over tasks**", "", *score_cells(result))]
    rows += [(task.name, METRIC_NAMES.get(task.metric, task.metric), *score_cells(task)) for task in result.tasks]
    note = (
        "Greedy answers to held-out questions; `blind` is the same model on the same prompts with every tile replaced "
        "by mid-grey, so `gain` is what the pictures contribute. The mean is unweighted."
    )
    table = markdown_table(("task", "metric", "score", "blind", "gain", "n"), rows) + f"\n\n{note}"
    return table if result.recompressed is None else f"{table}\n\n{_render_recompressed(result, result.recompressed)}"


def _render_recompressed(result: EvaluationResult, again: EvaluationResult) -> str:
    """Render what recompressing the pictures costs each task."""
    pairs = [("**mean over tasks**", result.score, again.score)]
    pairs += [(task.name, task.score, other.score) for task, other in zip(result.tasks, again.tasks, strict=True)]
    rows = [(name, f"{clean:.3f}", f"{jpeg:.3f}", f"{jpeg - clean:+.3f}") for name, clean, jpeg in pairs]
    head = f"## Pictures recompressed at JPEG quality {again.settings['jpeg_quality']}"
    return f"{head}\n\n{markdown_table(('task', 'as they are', 'recompressed', 'difference'), rows)}"


def _render_skipped(result: EvaluationResult) -> str:
    """List questions that could not be asked; empty when there are none."""
    failed = [(task.name, p.key, p.error) for task in result.tasks for p in task.predictions if p.error]
    if not failed:
        return ""
    head = f"## Left out\n\n{len(failed)} questions could not be asked and are in no score:"
    return f"{head}\n\n{markdown_table(('task', 'sample', 'why'), failed[:20])}"


def _render_examples(result: EvaluationResult) -> str:
    """Render the examples of the contact sheet as text."""
    rows = []
    for example in result.examples:
        p = example.prediction
        mark = "✓" if p.correct else "✗"
        rows.append(
            (example.task, show_question(p.question), p.reference, p.prediction, p.blind_prediction or "", mark)
        )
    note = "The first question of each task, and the first with the other outcome; not picked by quality."
    table = markdown_table(("task", "question", "reference", "prediction", "blind", ""), rows)
    return f"## Examples\n\n{note}\n\n{table}"


def _render_settings(settings: Mapping[str, Any]) -> str:
    """List everything that produced the scores."""
    values = {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}
    return "## Settings\n\n" + "\n".join(f"- {name}: `{value}`" for name, value in values.items())


def markdown_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Render rows as a markdown table; long cells are cut, pipes and line breaks escaped."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: str) -> str:
    """Make a text fit for a table cell; angle brackets (`<ref>`) would vanish as HTML."""
    text = " ".join(value.split())
    text = text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…"
    return text.replace("|", "\\|").replace("<", "&lt;")
