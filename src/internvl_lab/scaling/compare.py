"""Compare runs, wherever they were recorded: table for the terminal, pictures, report, page and metrics.

::

    read_runs(...) or a study's results ─> Run ... ─ write_runs ─> out/report.md        table, pictures, failed runs
                                                                      comparison.csv    every number, to the last digit
                                                                      metrics.json      {"rows": [{"label", "score", ...}]}
                                                                      comparison.html   all of it in one file
                                                                      comparison.png    scores by capability
                                                                      loss.png pareto.png scaling.png
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from internvl_lab.atomic import write_atomic
from internvl_lab.errors import ConfigError
from internvl_lab.scaling.compare_plots import draw_losses, draw_pareto, draw_scores, task_names
from internvl_lab.scaling.fit import StudyFit, fit_study
from internvl_lab.scaling.fit_plot import draw_law
from internvl_lab.scaling.fit_points import collect
from internvl_lab.scaling.fit_report import describe_fit, parameter_rows
from internvl_lab.scaling.page import heading, html_table, note, pictures, render_page
from internvl_lab.scaling.runs import Run, result_runs
from internvl_lab.scaling.table import DONE, FILE_NAME, TASK_PREFIX, RowResult
from internvl_lab.tracking import WandbLog

_SUFFIXES = "KMGTPEZ"


@dataclass(frozen=True)
class Column:
    """Describe one column of the table."""

    head: str
    cell: Callable[[Run, Run], str]
    """Run and baseline to text; a dash where there is no number."""
    narrow: bool = True
    """Shown on the terminal too, whose 80 columns must leave room for the label."""


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
    reference = find_baseline(runs, baseline)
    fit, reason = _fit([run for run in runs if run.status == DONE])
    drawn = _draw([run for run in runs if run.status == DONE], title, fit)
    paths = {name: write_atomic(out / f"{name}.png", data) for name, data in drawn.items()}
    for name, file, text in (
        ("numbers", "comparison.csv", _to_csv(runs)),
        ("report", "report.md", _render(runs, reference, title, list(drawn), fit, reason)),
        ("page", "comparison.html", _render_html(runs, reference, title, drawn, fit, reason)),
        ("metrics", "metrics.json", _to_json(runs, reference)),
    ):
        paths[name] = write_atomic(out / file, text)
    console = console or Console()
    console.print(comparison_table(runs, reference, title))
    for name, path in paths.items():
        console.print(f"{name:<10}  {path}", soft_wrap=True, markup=False, highlight=False)
    return paths


def comparison_table(runs: Sequence[Run], baseline: Run, title: str) -> Table:
    """Lay out runs for the terminal."""
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    columns = [column for column in shown_columns(runs, baseline) if column.narrow]
    table.add_column(columns[0].head, overflow="fold")
    for column in columns[1:]:
        table.add_column(column.head, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(*(c.cell(run, baseline) for c in columns), style="" if run.status == DONE else "red")
    return table


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


def gain(run: Run, baseline: Run) -> float | None:
    """Return the score minus the baseline's; None where one of them has none."""
    scores = run.values.get("score"), baseline.values.get("score")
    return None if scores[0] is None or scores[1] is None else scores[0] - scores[1]


def find_baseline(runs: Sequence[Run], label: str | None) -> Run:
    """Return the run of that label, or the first.

    Raises:
        ConfigError: no such run; names those that there are.
    """
    for run in runs:
        if label in (None, run.label):
            return run
    raise ConfigError(f"baseline {label!r} is no row of the study; rows: {', '.join(r.label for r in runs) or 'none'}")


def shown_columns(runs: Sequence[Run], baseline: Run) -> list[Column]:
    """Choose the columns in which some run has something to show; looping answers only where there are any."""
    loops = any(run.values.get("looping") for run in runs)
    return [
        column
        for column in COLUMNS
        if any(column.cell(run, baseline) != "-" for run in runs) and (loops or column.head != "loops")
    ]


def _score(run: Run, baseline: Run) -> str:
    if "score" not in run.values:
        return run.status
    return f"{run.values['score']:.3f} ± {run.values.get('standard_error', 0):.3f}"


def _gain(run: Run, baseline: Run) -> str:
    return "-" if run is baseline else _text(gain(run, baseline), "+.3f")


def _plain(name: str, form: str) -> Callable[[Run, Run], str]:
    """Return a cell that formats one value."""
    return lambda run, baseline: _text(run.values.get(name), form)


def _large(name: str) -> Callable[[Run, Run], str]:
    """Return a cell that shortens one large value: 2.85M."""
    return lambda run, baseline: compact(run.values.get(name))


def _text(value: float | None, form: str) -> str:
    """Format a number, or a dash for none."""
    return "-" if value is None else format(value, form)


def compact(value: float | None) -> str:
    """Write a large number in three digits with a suffix (1.82M, 29.3T); a dash for none."""
    if value is None:
        return "-"
    power = min(max((len(str(int(abs(value)))) - 1) // 3, 0), len(_SUFFIXES))
    scaled = value / 1000.0**power
    return f"{scaled:#.3g}".rstrip(".") + _SUFFIXES[power - 1] if power else f"{value:g}"


COLUMNS = (
    Column("row", lambda run, baseline: run.label),
    Column("params", _large("params")),
    Column("score ± s.e.", _score),
    Column("gain", _gain),
    Column("blind", _plain("blind", ".3f"), narrow=False),
    Column("val loss", _plain("val_loss", ".4f")),
    Column("loss", _plain("final_loss", ".4f")),
    Column("tokens", _large("tokens")),
    Column("FLOPs", _large("flops")),
    Column("hours", lambda run, baseline: _text(run.hours, ".2f"), narrow=False),
    Column("train s", _plain("train_s", ".0f")),
    Column("seed", _plain("seed", ".0f"), narrow=False),
    Column("loops", _plain("looping", ".3f")),
)


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


def _cells(runs: Sequence[Run], baseline: Run) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the whole table."""
    columns = shown_columns(runs, baseline)
    return [c.head for c in columns], [[c.cell(run, baseline) for c in columns] for run in runs]


def _task_cells(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the scores by task."""
    tasks = task_names(runs)
    return ["row", *tasks], [[r.label, *(_text(r.tasks.get(name), ".3f") for name in tasks)] for r in runs]


def _explain(runs: Sequence[Run], baseline: Run) -> str:
    """Say how to read the table."""
    text = (
        f"`gain` is the score minus that of {baseline.label}. `± s.e.` is the standard error from the number of "
        "questions; the spread over seeds is not in it. `loss` is the mean training loss over the last logged steps, "
        "`val loss` that on held-out samples after the last stage; `hours` are wall hours times devices."
    )
    loops = any(run.values.get("looping") for run in runs)
    return text + (" `loops` is the share of answers that repeat themselves." if loops else "")


def _render(
    runs: Sequence[Run], baseline: Run, title: str, drawn: Sequence[str], fit: StudyFit | None, reason: str
) -> str:
    """Return the report as markdown."""
    lines = [f"# {title}", "", *_markdown(*_cells(runs, baseline)), "", _explain(runs, baseline), ""]
    for name in drawn:
        lines += [f"![{name}]({name}.png)", ""]
    if task_names(runs):
        lines += ["## Scores by task", "", *_markdown(*_task_cells(runs)), ""]
    lines += ["## Scaling law", "", *(describe_fit(fit) if fit else [f"None: {reason}."]), ""]
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


def _render_html(
    runs: Sequence[Run], baseline: Run, title: str, drawn: dict[str, bytes], fit: StudyFit | None, reason: str
) -> str:
    """Return the report as one HTML page."""
    parts = [html_table(*_cells(runs, baseline)), note(_explain(runs, baseline).replace("`", ""))]
    parts += pictures(drawn)
    if task_names(runs):
        parts += [heading("Scores by task"), html_table(*_task_cells(runs))]
    parts.append(heading("Scaling law"))
    parts += [*map(note, describe_fit(fit)), html_table(*parameter_rows(fit))] if fit else [note(f"None: {reason}.")]
    failed = [[run.label, run.status, run.error] for run in runs if run.status != DONE]
    if failed:
        parts += [heading("Not finished"), html_table(["row", "status", "why"], failed)]
    return render_page(title, parts)


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
            **{name: value for name, value in run.values.items() if name != "score"},
            "tasks": dict(run.tasks),
        }
        for run in runs
    ]
    return json.dumps({"baseline": baseline.label, "rows": rows}, indent=1) + "\n"
