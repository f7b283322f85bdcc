"""Write what a test-time run leaves behind for its readers.

::

    out/report.md      table of results a task, examples, how to read it, settings
        curves.csv     the same and every point of the curves, one row each
        curves.json    every number of the tables and the plot
        curves.png     score over N and over cost (left out when nothing was drawn)

Every file appears whole or not at all; `curves.json` is last, so its presence means a finished run.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from itertools import chain
from pathlib import Path
from typing import Any

from rich.table import Table

from internvl_lab.atomic import write_atomic
from internvl_lab.config import TestTimeConfig
from internvl_lab.errors import InternVLLabError
from internvl_lab.inference.test_time.plot import GIGA, draw_curves
from internvl_lab.inference.test_time.results import Curve, Result, Row, to_json
from internvl_lab.inference.test_time.samples import Record

COLUMNS = ("task", "result", "N", "score", "low", "high", "delta", "delta_low", "delta_high")
COSTS = ("tokens", "gflops", "looping", "boxed")
"""Columns of `curves.csv`; shares lie in 0 to 1. Differences from `direct` and shares of answers stand in rows of the
report's table; the further points of the curves leave them empty."""
HEAD = ("result", "N", "score", "95 % band", "vs direct", "tokens", "GFLOPs", "looping", "boxed")
NAMES = {
    "direct": "direct, greedy",
    "cot": "with steps, greedy",
    "sample": "one drawn answer",
    "majority": "majority vote",
    "weighted": "weighted vote",
    "best_of_n": "best of N",
    "pass": "any of N right",
}
ROW_OF = {"first": "sample", "majority": "majority", "weighted": "weighted", "best_of_n": "best_of_n"}
"""`select` to the row that it reports."""
LONGEST_CELL = 200
NOTE = """`vs direct` is the paired difference with its own 95 % band; bands are bootstraps over questions. Scores at N
are averages over all subsets of N of the drawn answers{drawn}; `any of N right` needs an oracle and is no result.
Tokens and operations are those of one question; the prompt is computed once for all its answers. `looping` is the
share of answers most of whose ten-word sequences repeat earlier ones, `boxed` the share that ends as asked."""
DRAWN = " (weighted votes: over 2,000 drawn subsets where there are more)"


def write_report(
    config: TestTimeConfig, results: Sequence[Result], records: Sequence[Record], settings: Mapping[str, Any]
) -> dict[str, Path]:
    """Write report, plot and numbers into `config.out`.

    Args:
        config: what was run.
        results: the whole run first.
        records: all answers, for the examples.
        settings: everything that produced the results.
    Returns:
        Name to path of everything written.
    Raises:
        InternVLLabError: no question could be asked, so there is nothing to report.
    """
    if not results[0].rows:
        raise InternVLLabError(f"test-time: no question could be asked; {Path(config.out) / 'samples.jsonl'} says why")
    folder = Path(config.out)
    paths = {"report": folder / "report.md"}
    if results[0].curves:
        name = ", ".join(Path(checkpoint).name for checkpoint in config.checkpoint)
        subtitle = f"{name}, {config.prompt} prompt, T = {config.temperature:g}, top-p {config.top_p:g}"
        paths["curves"] = write_atomic(folder / "curves.png", draw_curves(results, subtitle))
    write_atomic(paths["report"], render(config, results, records, settings))
    paths["table"] = write_atomic(folder / "curves.csv", to_csv(results))
    chosen = headline(config, results[0])
    numbers = {"headline": {"row": chosen.name, "score": chosen.score.mean}, "tasks": to_json(results)}
    paths["numbers"] = write_atomic(
        folder / "curves.json", json.dumps({**numbers, "settings": settings}, indent=1) + "\n"
    )
    return paths


def result_table(result: Result) -> Table:
    """Lay out the results for the terminal."""
    table = Table(title=f"test-time scaling, {result.task}, {result.num_questions} questions")
    for name in ("result", "N", "score", "± 95 %", "vs direct", "tokens", "GFLOPs"):
        table.add_column(name, justify="left" if name == "result" else "right")
    for row in result.rows:
        half = f"{(row.score.high - row.score.low) / 2:.3f}"
        delta = "-" if row.name == "direct" else f"{row.delta.mean:+.3f}"
        cost = (f"{row.tokens:.1f}", f"{row.flops / GIGA:.3g}")
        table.add_row(NAMES[row.name], str(row.num_samples), f"{row.score.mean:.3f}", half, delta, *cost)
    return table


def to_csv(results: Sequence[Result]) -> str:
    """Write the results and, for each curve, its points below the largest N, under `COLUMNS` and `COSTS`."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow((*COLUMNS, *COSTS))
    for result in results:
        for cells in (*map(_row_cells, result.rows), *chain.from_iterable(map(_point_cells, result.curves))):
            writer.writerow((result.task, *map(_rounded, cells)))
    return buffer.getvalue()


def _row_cells(row: Row) -> tuple[str | float, ...]:
    cost = (row.tokens, row.flops / GIGA, row.looping, row.boxed)
    return (row.name, row.num_samples, *astuple(row.score), *astuple(row.delta), *cost)


def _point_cells(curve: Curve) -> list[tuple[str | float, ...]]:
    """List the points of a curve that are no row of the table; their difference from `direct` is not known."""
    points = zip(curve.sizes, curve.bands, curve.tokens, curve.flops, strict=True)
    return [
        (curve.name, size, *astuple(band), "", "", "", tokens, flops / GIGA, "", "")
        for size, band, tokens, flops in points
        if size < curve.sizes[-1]
    ]


def _rounded(cell: str | float) -> str | float:
    """Keep six digits: scores come from some hundred questions."""
    return float(f"{cell:.6g}") if isinstance(cell, float) else cell


def headline(config: TestTimeConfig, result: Result) -> Row:
    """Return the row that `select` names; without drawn answers the greedy one of `prompt`."""
    name = ROW_OF[config.select] if config.samples else config.prompt
    return next(row for row in result.rows if row.name == name)


def render(
    config: TestTimeConfig, results: Sequence[Result], records: Sequence[Record], settings: Mapping[str, Any]
) -> str:
    """Return the report as markdown."""
    chosen = headline(config, results[0])
    parts = [
        "# Test-time scaling",
        f"{', '.join(config.checkpoint)}, {config.prompt} prompt, {results[0].num_questions} questions. "
        f"**{NAMES[chosen.name]}, N = {chosen.num_samples}: {chosen.score.mean:.3f}** ({_delta(chosen)} vs direct)",
    ]
    if results[0].curves:
        parts.append("![curves](curves.png)")
    for result in results:
        skipped = f", {result.num_skipped} left out" if result.num_skipped else ""
        parts.append(f"## {result.task} ({result.num_questions} questions{skipped})")
        parts.append(_table(HEAD, [_cells(row) for row in result.rows]))
    inexact = any(not all(curve.exact) for result in results for curve in result.curves)
    parts.append(" ".join(NOTE.format(drawn=DRAWN if inexact else "").split()))
    parts.append("## Examples\n\nThe first question of each task, asked in each way.\n\n" + _examples(records))
    listed = [f"- {name}: `{json.dumps(value, ensure_ascii=False)}`" for name, value in settings.items()]
    parts.append("## Settings\n\n" + "\n".join(listed))
    return "\n\n".join(parts) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    """Format one result."""
    band = f"{row.score.low:.3f} to {row.score.high:.3f}"
    shares = (f"{row.looping:.1%}", f"{row.boxed:.1%}")
    cost = (f"{row.tokens:.1f}", f"{row.flops / GIGA:.3g}")
    return (NAMES[row.name], str(row.num_samples), f"{row.score.mean:.3f}", band, _delta(row), *cost, *shares)


def _delta(row: Row) -> str:
    if row.name == "direct":
        return "-"
    return f"{row.delta.mean:+.3f} [{row.delta.low:+.3f}, {row.delta.high:+.3f}]"


def _examples(records: Sequence[Record]) -> str:
    """Show the first answered question of each task, once for each way of asking."""
    shown: dict[tuple[str, str], Record] = {}
    for record in records:
        if record.samples:
            shown.setdefault((record.task, record.arm), record)
    rows = [
        (task, arm, record.question, record.reference, record.samples[0].text, record.samples[0].answer)
        for (task, arm), record in sorted(shown.items())
    ]
    return _table(("task", "asked", "question", "reference", "model", "read as"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Render rows as a markdown table; long cells are cut, pipes, line breaks and angle brackets escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: str) -> str:
    text = " ".join(value.split())
    text = text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…"
    return text.replace("|", "\\|").replace("<", "&lt;")
