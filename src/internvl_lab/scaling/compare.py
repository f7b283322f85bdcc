"""Compare runs, wherever they were recorded: table for the terminal, pictures, report, page and metrics.

::

    read_runs(...) or a study's results ─> Run ... ─ write_runs ─> out/

    report.md         table, pictures, failed runs          comparison.png    scores by capability
    comparison.csv    every number, to the last digit       loss.png          loss against tokens, FLOPs, hours
    metrics.json      {"rows": [{"label", "score", ...}]}   pareto.png        score against cost
    comparison.html   all of it in one file                 scaling.png       the law, where the runs allow a fit
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from internvl_lab.atomic import write_atomic
from internvl_lab.errors import ConfigError
from internvl_lab.scaling.compare_plots import draw_losses, draw_pareto, draw_scores, task_names
from internvl_lab.scaling.compare_table import comparison_table, gain, shown_columns, table_cells, task_cells
from internvl_lab.scaling.fit import StudyFit, fit_study
from internvl_lab.scaling.fit_plot import draw_law
from internvl_lab.scaling.fit_points import collect
from internvl_lab.scaling.fit_report import describe_fit, parameter_rows
from internvl_lab.scaling.page import heading, html_table, note, pictures, render_page
from internvl_lab.scaling.runs import Run, result_runs
from internvl_lab.scaling.table import DONE, FILE_NAME, TASK_PREFIX, RowResult
from internvl_lab.tracking import WandbLog

PICTURES = {
    "comparison": "Scores by capability",
    "loss": "Training loss against cost",
    "pareto": "Score against cost",
    "scaling": "Loss against size",
}
"""Picture to its heading on the page."""


@dataclass(frozen=True)
class _Comparison:
    """Hold what report and page show."""

    runs: Sequence[Run]
    baseline: Run
    title: str
    pictures: Mapping[str, bytes]
    """Name to PNG."""
    fit: StudyFit | None
    why_not: str
    """Why there is no law."""


def write_comparison(
    results: Sequence[RowResult],
    study_dir: Path,
    *,
    title: str = "Study",
    baseline: str | None = None,
    console: Console | None = None,
) -> dict[str, Path]:
    """Compare the rows of a study; as `write_runs`, with the study's own table beside.

    Args:
        results: from `run_study`.
        study_dir, title, baseline, console: as in `write_runs`.
    Raises:
        ConfigError: no rows, or no row of the baseline's label.
    """
    paths = write_runs(result_runs(results), study_dir, title=title, baseline=baseline, console=console)
    return paths | {"table": study_dir / FILE_NAME}


def write_runs(
    runs: Sequence[Run],
    out: Path,
    *,
    title: str = "Comparison",
    baseline: str | None = None,
    console: Console | None = None,
) -> dict[str, Path]:
    """Write table, report, page and pictures of some runs, and print the table.

    Args:
        runs: from `read_runs`; failed ones are listed and left out of the pictures.
        out: where everything goes.
        title: heading, for example the claim that a study tests.
        baseline: label of the run the others are compared with; None = the first.
        console: where the table goes; None = standard output.
    Returns:
        Name to path of everything written.
    Raises:
        ConfigError: no runs, or no run of the baseline's label.
    """
    done = [run for run in runs if run.status == DONE]
    fit, why_not = _fit(done)
    shown = _Comparison(runs, find_baseline(runs, baseline), title, _draw(done, title, fit), fit, why_not)
    paths = {name: write_atomic(out / f"{name}.png", data) for name, data in shown.pictures.items()}
    for name, file, text in (
        ("numbers", "comparison.csv", _to_csv(runs)),
        ("report", "report.md", _render(shown)),
        ("page", "comparison.html", _render_html(shown)),
        ("metrics", "metrics.json", _to_json(runs, shown.baseline)),
    ):
        paths[name] = write_atomic(out / file, text)
    console = console or Console()
    console.print(comparison_table(runs, shown.baseline, title))
    for name, path in paths.items():
        console.print(f"{name:<10}  {path}", soft_wrap=True, markup=False, highlight=False)
    return paths


def push(runs: Sequence[Run], paths: dict[str, Path], log: WandbLog, baseline: str | None = None) -> None:
    """Log a comparison as a W&B run of its own: one table and the pictures.

    Args:
        runs, paths: given to and returned by `write_runs`.
        log: an open run; it is finished here.
        baseline: as in `write_runs`.
    """
    reference = find_baseline(runs, baseline)
    columns, tasks = shown_columns(runs, reference), task_names(runs)
    rows = [[*(c.cell(run, reference) for c in columns), *(run.tasks.get(name) for name in tasks)] for run in runs]
    log.log_rows("comparison/runs", [*(c.head for c in columns), *(f"{TASK_PREFIX}{name}" for name in tasks)], rows)
    for name, path in paths.items():
        if path.suffix == ".png":
            log.log_images(f"comparison/{name}", [path])
    log.finish()


def find_baseline(runs: Sequence[Run], label: str | None) -> Run:
    """Return the run of that label, or the first.

    Raises:
        ConfigError: no such run; names those that there are.
    """
    for run in runs:
        if label in (None, run.label):
            return run
    raise ConfigError(f"baseline {label!r} is no row of the study; rows: {', '.join(r.label for r in runs) or 'none'}")


def _fit(runs: Sequence[Run]) -> tuple[StudyFit | None, str]:
    """Fit a law where the runs allow it; else say why not."""
    try:
        return fit_study(collect(runs)), ""
    except ConfigError as error:
        return None, str(error)


def _draw(runs: Sequence[Run], title: str, fit: StudyFit | None) -> dict[str, bytes]:
    """Draw every picture for which there is something to show."""
    drawn = {
        "comparison": draw_scores(runs, title),
        "loss": draw_losses(runs),
        "pareto": draw_pareto(runs),
        "scaling": draw_law(fit) if fit else None,
    }
    return {name: data for name, data in drawn.items() if data is not None}


def _explain(shown: _Comparison) -> str:
    """Say how to read the table."""
    text = (
        f"`gain` is the score minus that of {shown.baseline.label}. `± s.e.` is the standard error from the number of "
        "questions; the spread over seeds is not in it. `loss` is the mean training loss over the last logged steps, "
        "`val loss` that on held-out samples after the last stage; `hours` are wall hours times devices."
    )
    loops = any(run.values.get("looping") for run in shown.runs)
    return text + (" `loops` is the share of answers that repeat themselves." if loops else "")


def _render(shown: _Comparison) -> str:
    """Return the report as markdown."""
    runs, fit = shown.runs, shown.fit
    lines = [f"# {shown.title}", "", *_markdown(*table_cells(runs, shown.baseline)), "", _explain(shown), ""]
    for name in shown.pictures:
        lines += [f"![{name}]({name}.png)", ""]
    if task_names(runs):
        lines += ["## Scores by task", "", *_markdown(*task_cells(runs)), ""]
    lines += ["## Scaling law", "", *(describe_fit(fit) if fit else [f"None: {shown.why_not}."]), ""]
    if fit:
        lines += [*_markdown(*parameter_rows(fit)), ""]
    lines += ["## Runs", ""]
    for run in runs:
        lines.append(f"- **{run.label}** {_origin(run)}")
        if run.error:
            lines.append(f"  - {run.error}")
    return "\n".join(lines) + "\n"


def _origin(run: Run) -> str:
    """Say where a run comes from: overrides, status, revision, folder or address."""
    overrides = f"`{run.texts['overrides']}` " if "overrides" in run.texts else ""
    revision = f", revision {run.texts['revision']}" if "revision" in run.texts else ""
    return f"{overrides}{run.status}{revision}" + (f": `{run.source}`" if run.source else "")


def _render_html(shown: _Comparison) -> str:
    """Return the report as one HTML page."""
    runs, fit = shown.runs, shown.fit
    parts = [html_table(*table_cells(runs, shown.baseline)), note(_explain(shown).replace("`", ""))]
    parts += pictures({PICTURES[name]: data for name, data in shown.pictures.items()})
    if task_names(runs):
        parts += [heading("Scores by task"), html_table(*task_cells(runs))]
    law = (
        [*map(note, describe_fit(fit)), html_table(*parameter_rows(fit))] if fit else [note(f"None: {shown.why_not}.")]
    )
    parts += [heading("Scaling law"), *law]
    failed = [[run.label, run.status, run.error] for run in runs if run.status != DONE]
    if failed:
        parts += [heading("Not finished"), html_table(["row", "status", "why"], failed)]
    return render_page(shown.title, parts)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Render a markdown table as lines."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines]


def _to_csv(runs: Sequence[Run]) -> str:
    """Write every number of every run; floats keep every bit."""
    names, tasks = list(dict.fromkeys(name for run in runs for name in run.values)), task_names(runs)
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["label", "status", "error", "devices", *names, *(TASK_PREFIX + name for name in tasks)])
    for run in runs:
        numbers = [*(run.values.get(name, "") for name in names), *(run.tasks.get(name, "") for name in tasks)]
        writer.writerow([run.label, run.status, run.error, "" if run.devices is None else run.devices, *numbers])
    return buffer.getvalue()


def _to_json(runs: Sequence[Run], baseline: Run) -> str:
    """Write the rows for programs."""
    rows = [
        {
            "label": run.label,
            "status": run.status,
            "error": run.error,
            "source": run.source,
            **run.texts,
            "score": run.values.get("score"),
            "gain_over_baseline": gain(run, baseline),
            "hours": run.hours,
            **{name: value if math.isfinite(value) else None for name, value in run.values.items() if name != "score"},
            "tasks": dict(run.tasks),
        }
        for run in runs
    ]
    return json.dumps({"baseline": baseline.label, "rows": rows}, indent=1) + "\n"
