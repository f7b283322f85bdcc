"""Say what a fit has found: tables for the terminal and markdown, sentences, and JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from internvl_lab.scaling.fit import CONFIDENCE, Fitted, Law, StudyFit, interval
from internvl_lab.scaling.fit_points import COLUMNS, SYMBOLS
from internvl_lab.scaling.frontier import CostFunction, Optimum, PartCost

LETTERS = {"vision": ("A", "a"), "language": ("B", "b"), "data": ("C", "c")}
"""Axis to the names of its coefficient and exponent."""


def formula(law: Law) -> str:
    """Write the form of a law: L = E + A·Nv^-a + ..."""
    terms = [f"{LETTERS[axis][0]}·{SYMBOLS[axis]}^-{LETTERS[axis][1]}" for axis in law.axes]
    return " + ".join(["L = E", *terms])


def parameter_rows(fit: StudyFit) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table of parameters, each with its interval, without and with the largest runs."""
    percent = f"{CONFIDENCE:.0%}"
    head = ["parameter", f"without the largest runs [{percent}]", f"all runs [{percent}]"]
    columns = [_parameters(fitted) for fitted in (fit.trial, fit.final)]
    rows = []
    for name in columns[0]:
        cells = [f"{value:.4g} [{low:.4g}, {high:.4g}]" for value, low, high in (c[name] for c in columns)]
        rows.append([name, *cells])
    return head, rows


def describe_fit(fit: StudyFit) -> list[str]:
    """Say in sentences what was fitted, how well it predicts the held-out runs, and what was left out."""
    points, errors = fit.points, fit.errors
    worst = int(np.abs(errors).argmax())
    label = [points.labels[i] for i in np.flatnonzero(fit.held_out)][worst]
    lines = [
        f"{formula(fit.final.law)} for {points.loss}, from {len(points.losses)} runs; "
        f"residuals {fit.final.spread:.2%} (root mean square of the log, corrected for the parameters).",
        f"Extrapolation: the law of the other {int((~fit.held_out).sum())} runs misses the {len(errors)} held-out "
        f"largest ones by {np.abs(errors).mean():.2%} on average, at worst {errors[worst]:+.2%} ({label}).",
    ]
    lines.append(f"Over the sizes of the study the terms fall by {', '.join(map(_fall, *_falls(fit)))}.")
    for axis, size in points.constant.items():
        lines.append(f"{COLUMNS[axis]} is {size:,.0f} in all runs: the law has no term for it.")
    for reason, number in points.skipped.items():
        lines.append(f"Left out: {number} {'run' if number == 1 else 'runs'} {reason}.")
    return lines


def _falls(fit: StudyFit) -> tuple[tuple[str, ...], list[float], list[bool]]:
    """Return each axis, how far its term falls from the smallest to the largest size, and whether that shows."""
    law, points = fit.final.law, fit.points
    ends = np.stack([points.sizes.min(axis=0), points.sizes.max(axis=0)])
    terms = law.coefficients * np.exp(-law.exponents * np.log(ends))
    falls = terms[0] - terms[1]
    noise = fit.final.spread * np.median(points.losses)
    return law.axes, falls.tolist(), (falls > noise).tolist()


def _fall(axis: str, fall: float, is_measurable: bool) -> str:
    """Write how far a term falls."""
    return f"{fall:.3g} ({SYMBOLS[axis]}{'' if is_measurable else ': less than the noise of one run'})"


def describe_cost(cost: CostFunction) -> str:
    """Say what a run is assumed to cost."""
    if not isinstance(cost, PartCost):
        return "Cost: as given."
    measured = "assumed" if cost.error is None else f"measured on the runs, at most {cost.error:.1%} off"
    return f"Cost: D · ({cost.vision:.2f} Nv + {cost.language:.2f} Nl) FLOPs, {measured}."


def fit_table(fit: StudyFit) -> Table:
    """Lay out the parameters for the terminal."""
    return _table(*parameter_rows(fit), title=formula(fit.final.law))


def frontier_table(optima: Sequence[Optimum]) -> Table:
    """Lay out the compute-optimal sizes for the terminal."""
    head = ["FLOPs", *(SYMBOLS[axis] for axis in COLUMNS), "loss", "beyond the study"]
    rows = [
        [
            f"{best.budget:.3g}",
            *(f"{best.sizes[axis]:.3g}" if axis in best.sizes else "-" for axis in COLUMNS),
            f"{best.loss:.4f}",
            f"{best.beyond:.3g} x" if best.beyond > 1 else "no",
        ]
        for best in optima
    ]
    return _table(head, rows, title="compute-optimal frontier (law of all runs)")


def to_json(fit: StudyFit, optima: Sequence[Optimum] = (), cost: CostFunction | None = None) -> str:
    """Write a fit for programs: laws, intervals, held-out runs, frontier."""
    points = fit.points
    predicted = fit.trial.law.predict(points.sizes[fit.held_out])
    held_out = [
        {"label": points.labels[i], "loss": float(points.losses[i]), "predicted": float(p), "error": float(error)}
        for i, p, error in zip(np.flatnonzero(fit.held_out), predicted, fit.errors, strict=True)
    ]
    content = {
        "formula": formula(fit.final.law),
        "loss": points.loss,
        "runs": len(points.losses),
        "skipped": dict(points.skipped),
        "constant": dict(points.constant),
        "confidence": CONFIDENCE,
        "without_held_out": _laws(fit.trial),
        "all_runs": _laws(fit.final),
        "held_out": held_out,
        "cost": {"vision": cost.vision, "language": cost.language} if isinstance(cost, PartCost) else None,
        "frontier": [{"flops": o.budget, "sizes": dict(o.sizes), "loss": o.loss, "beyond": o.beyond} for o in optima],
    }
    return json.dumps(content, indent=1) + "\n"


def _laws(fitted: Fitted) -> dict[str, Any]:
    """Return the parameters of a law with their intervals, and its residual spread."""
    values = {
        name: {"value": value, "low": low, "high": high} for name, (value, low, high) in _parameters(fitted).items()
    }
    return {"parameters": values, "residual": fitted.spread}


def _parameters(fitted: Fitted) -> dict[str, tuple[float, float, float]]:
    """Return each parameter with its interval."""
    values = _by_name(fitted.law)
    draws = np.array([list(_by_name(law).values()) for law in fitted.draws])
    low, high = interval(draws)
    return {name: (v, float(a), float(b)) for (name, v), a, b in zip(values.items(), low, high, strict=True)}


def _by_name(law: Law) -> dict[str, float]:
    """Name the parameters: E, then A and a, B and b, C and c."""
    named = {"E": law.floor}
    for axis, coefficient, exponent in zip(law.axes, law.coefficients, law.exponents, strict=True):
        named |= {LETTERS[axis][0]: float(coefficient), LETTERS[axis][1]: float(exponent)}
    return named


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> Table:
    """Lay out text cells."""
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return table
