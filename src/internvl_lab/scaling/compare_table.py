"""The table of a comparison: which columns there are, how a number is written, and which columns are worth showing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from internvl_lab.scaling.compare_plots import task_names
from internvl_lab.scaling.runs import Run
from internvl_lab.scaling.table import DONE

_SUFFIXES = "KMGTPEZ"
MIN_LABEL = 14
"""Characters that a label keeps on a narrow terminal."""


@dataclass(frozen=True)
class Column:
    """Describe one column of the table."""

    head: str
    cell: Callable[[Run, Run], str]
    """Run and baseline to text; a dash where there is no number."""
    narrow: bool = True
    """Shown on the terminal too, whose 80 columns must leave room for the label."""


def comparison_table(runs: Sequence[Run], baseline: Run, title: str) -> Table:
    """Lay out runs for the terminal."""
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    columns = [column for column in shown_columns(runs, baseline) if column.narrow]
    table.add_column(columns[0].head, overflow="fold", min_width=MIN_LABEL)
    for column in columns[1:]:
        table.add_column(column.head, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(*(escape(c.cell(run, baseline)) for c in columns), style="" if run.status == DONE else "red")
    return table


def gain(run: Run, baseline: Run) -> float | None:
    """Return the score minus the baseline's; None where one of them has none."""
    scores = run.values.get("score"), baseline.values.get("score")
    return None if scores[0] is None or scores[1] is None else scores[0] - scores[1]


def table_cells(runs: Sequence[Run], baseline: Run) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the whole table."""
    columns = shown_columns(runs, baseline)
    return [c.head for c in columns], [[c.cell(run, baseline) for c in columns] for run in runs]


def task_cells(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the scores by task."""
    tasks = task_names(runs)
    return ["row", *tasks], [[r.label, *(_text(r.tasks.get(name), ".3f") for name in tasks)] for r in runs]


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
    error = f" ± {run.values['standard_error']:.3f}" if "standard_error" in run.values else ""
    return f"{run.values['score']:.3f}{error}"


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
    rounded = float(f"{value:.3g}")  # before choosing the suffix: 999,999 is 1.00M
    power = min(max((len(str(int(abs(rounded)))) - 1) // 3, 0), len(_SUFFIXES))
    return f"{rounded / 1000.0**power:#.3g}".rstrip(".") + _SUFFIXES[power - 1] if power else f"{rounded:g}"


COLUMNS = (
    Column("row", lambda run, baseline: run.label),
    Column("params", _large("params")),
    Column("score ± s.e.", _score),
    Column("gain", _gain),
    Column("blind", _plain("blind", ".3f"), narrow=False),
    Column("val loss", _plain("val_loss", ".4f")),
    Column("loss", _plain("final_loss", ".4f")),
    Column("tokens", _large("tokens"), narrow=False),
    Column("FLOPs", _large("flops")),
    Column("hours", lambda run, baseline: _text(run.hours, ".2f"), narrow=False),
    Column("train s", _plain("train_s", ".0f"), narrow=False),
    Column("seed", _plain("seed", ".0f"), narrow=False),
    Column("loops", _plain("looping", ".3f")),
    Column("JPEG", _plain("recompressed", ".3f")),
)
