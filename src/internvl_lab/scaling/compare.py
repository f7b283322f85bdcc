"""Compare the rows of a study: table for the terminal, picture, report and metrics.

::

    study_dir/report.md        table, picture, failed rows
              metrics.json     {"rows": [{"label", "status", "score", "gain_over_baseline", "tasks", ...}]}
              comparison.png   mean score with its standard error, looping answers, scores by task; loss against tokens
              study.csv        written by the study
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from internvl_lab.atomic import write_atomic
from internvl_lab.errors import ConfigError
from internvl_lab.scaling.curves import read_loss
from internvl_lab.scaling.table import DONE, FILE_NAME, RowResult

COLUMNS = ("row", "params", "score ± s.e.", "gain", "blind", "loss", "train s")
"""Few and narrow, so that labels are readable on a terminal of 80 columns."""
EXTRA = {"looping": "loops", "recompressed": "JPEG"}
"""Columns that are shown only where a row has a number other than 0 for them."""


def write_comparison(
    results: Sequence[RowResult],
    study_dir: Path,
    *,
    title: str = "Study",
    baseline: str | None = None,
    console: Console | None = None,
) -> dict[str, Path]:
    """Write report, metrics and picture of a study, and print the table.

    Args:
        results: from `run_study`; failed rows are listed and left out of the picture.
        study_dir: where everything goes.
        title: heading, for example the claim that the study tests.
        baseline: label of the row the others are compared with; None = the first.
        console: where the table goes; None = standard output.
    Returns:
        Name to path of everything written.
    Raises:
        ConfigError: no rows, or no row of the baseline's label.
    """
    reference = _find_baseline(results, baseline)
    paths = {"report": study_dir / "report.md", "metrics": study_dir / "metrics.json", "table": study_dir / FILE_NAME}
    done = [result for result in results if result.status == DONE]
    if done:
        paths["comparison"] = study_dir / "comparison.png"
        _draw(done, title, paths["comparison"])
    rows = [{**asdict(r), "tasks": dict(r.tasks), "gain_over_baseline": gain(r, reference)} for r in results]
    write_atomic(paths["report"], _render(results, reference, title, "comparison" in paths))
    write_atomic(paths["metrics"], json.dumps({"baseline": reference.label, "rows": rows}, indent=1) + "\n")
    console = console or Console()
    console.print(comparison_table(results, reference, title))
    for name, path in paths.items():
        console.print(f"{name:<10}  {path}", soft_wrap=True, markup=False, highlight=False)
    return paths


def comparison_table(results: Sequence[RowResult], baseline: RowResult, title: str) -> Table:
    """Lay out the rows of a study for the terminal."""
    table = Table(title=title)
    extra = _extra(results)
    table.add_column(COLUMNS[0], overflow="fold")
    for name in _columns(extra)[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        table.add_row(*_cells(result, baseline, extra), style="" if result.status == DONE else "red")
    return table


def gain(result: RowResult, baseline: RowResult) -> float | None:
    """Return the score minus the baseline's; None where one of them has none."""
    return None if result.score is None or baseline.score is None else result.score - baseline.score


def _find_baseline(results: Sequence[RowResult], label: str | None) -> RowResult:
    """Return the result of that label, or the first."""
    for result in results:
        if label in (None, result.label):
            return result
    raise ConfigError(
        f"baseline {label!r} is no row of the study; rows: {', '.join(r.label for r in results) or 'none'}"
    )


def _extra(results: Sequence[RowResult]) -> list[str]:
    """List the fields of `EXTRA` that these results have something to say about."""
    return [name for name in EXTRA if any(getattr(result, name) for result in results)]


def _columns(extra: Sequence[str]) -> tuple[str, ...]:
    return (*COLUMNS, *(EXTRA[name] for name in extra))


def _cells(result: RowResult, baseline: RowResult, extra: Sequence[str]) -> tuple[str, ...]:
    """Format one row; a dash where a number is missing."""
    difference = None if result is baseline else gain(result, baseline)
    score = f"{result.score:.3f} ± {result.standard_error or 0:.3f}" if result.score is not None else result.status
    return (
        result.label,
        "-" if result.params is None else f"{result.params / 1e6:,.2f}M",
        score,
        _number(difference, "+.3f"),
        _number(result.blind, ".3f"),
        _number(result.final_loss, ".4f"),
        _number(result.train_s, ".0f"),
        *(_number(getattr(result, name), ".3f") for name in extra),
    )


def _number(value: float | None, form: str) -> str:
    """Format a number, or a dash for none."""
    return "-" if value is None else format(value, form)


def _render(results: Sequence[RowResult], baseline: RowResult, title: str, has_picture: bool) -> str:
    """Return the report as markdown."""
    extra = _extra(results)
    lines = [f"# {title}", "", *_markdown(_columns(extra), [_cells(r, baseline, extra) for r in results]), ""]
    lines += [
        f"`gain` is the score minus that of {baseline.label}. `± s.e.` is the standard error from the number of "
        "questions; the spread over seeds is not in it. `loss` is the mean training loss over the last logged steps."
        + (" `loops` is the share of answers that repeat themselves." if "looping" in extra else "")
        + (" `JPEG` is the score on recompressed pictures." if "recompressed" in extra else ""),
        "",
    ]
    if has_picture:
        lines += ["![comparison](comparison.png)", ""]
    if tasks := _task_names(results):
        scored = [(r.label, *(_number(r.tasks.get(name), ".3f") for name in tasks)) for r in results]
        lines += ["## Scores by task", "", *_markdown(("row", *tasks), scored), ""]
    lines += ["## Runs", ""]
    for r in results:
        lines.append(f"- **{r.label}** `{r.overrides}` {r.status}, revision {r.revision or 'unknown'}: `{r.run_dir}`")
        if r.error:
            lines.append(f"  - {r.error}")
    return "\n".join(lines) + "\n"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Render a markdown table as lines."""
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


def _task_names(results: Sequence[RowResult]) -> list[str]:
    """List the tasks of all rows in order of appearance."""
    return list(dict.fromkeys(name for result in results for name in result.tasks))


def _draw(results: Sequence[RowResult], title: str, path: Path) -> None:
    """Draw scores by task above loss curves, and move the picture into place when it is complete."""
    curves = {r.label: curve for r in results if (curve := read_loss(Path(r.run_dir))) is not None}
    figure = Figure(figsize=(11, 8 if curves else 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    axes: Any = figure.subplots(2 if curves else 1, 1, squeeze=False)[:, 0]
    _draw_scores(axes[0], results)
    for result in results:
        if (curve := curves.get(result.label)) is not None:
            number = results.index(result)
            axes[1].plot(curve.tokens, curve.smoothed(), color=f"C{number % 10}", lw=1.4, label=result.label)
    if curves:
        axes[1].set(xlabel="tokens", ylabel="training loss (moving average)")
        axes[1].grid(alpha=0.3)
        axes[1].legend(fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomic(path, picture.getvalue())


def _draw_scores(axes: Axes, results: Sequence[RowResult]) -> None:
    """Draw grouped bars: the mean with its standard error, the share of looping answers, then every task."""
    tasks = _task_names(results)
    places, width = np.arange(len(tasks) + 2), 0.8 / len(results)
    for number, result in enumerate(results):
        scores = [result.score or 0.0, result.looping or 0.0, *(result.tasks.get(name, 0.0) for name in tasks)]
        centres = places - 0.4 + (number + 0.5) * width
        axes.bar(centres, scores, width, color=f"C{number % 10}", label=result.label)
        axes.errorbar(centres[0], scores[0], yerr=result.standard_error or 0.0, color="black", capsize=3)
    axes.axvline(1.5, color="grey", lw=0.8, ls=":")
    axes.set_xticks(places, ["mean", "looping", *tasks], rotation=20)
    axes.set(ylabel="score", ylim=(0, 1.05))
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)
