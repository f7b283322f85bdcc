"""What is said of a fit."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from internvl_lab.scaling import Law, PartCost, Run, collect, fit_study, frontier, measure_cost
from internvl_lab.scaling.fit import StudyFit
from internvl_lab.scaling.fit_report import (
    describe_cost,
    describe_fit,
    fit_table,
    formula,
    frontier_table,
    parameter_rows,
    to_json,
)


@pytest.fixture(scope="module")
def fit(make_runs: Callable[..., list[Run]]) -> StudyFit:
    runs = make_runs((1, 4, 4), 1e-3)
    failed = replace(runs[0], status="failed")
    return fit_study(collect([failed, failed, *runs]), draws=20)


def shown(*parts: object) -> str:
    console = Console(file=io.StringIO(), width=100)
    for part in parts:
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_form_names_the_axes_that_vary(fit: StudyFit) -> None:
    assert formula(fit.final.law) == "L = E + B·Nl^-b + C·D^-c"


def test_every_parameter_has_its_intervals(fit: StudyFit) -> None:
    head, rows = parameter_rows(fit)
    assert head == ["parameter", "without the largest runs [95%]", "all runs [95%]"]
    assert [row[0] for row in rows] == ["E", "B", "b", "C", "c"]
    exponent = fit.final.law.exponents[0]
    assert rows[2][2].startswith(f"{exponent:.4g} [")
    text = shown(fit_table(fit))
    assert all(cell in text for row in rows for cell in row)


def test_the_sentences_state_error_and_omissions(fit: StudyFit) -> None:
    law, extrapolation, falls, constant, skipped = describe_fit(fit)
    assert law.startswith("L = E + B·Nl^-b + C·D^-c for val_loss, from 16 runs; residuals 0.0")
    worst = fit.errors[np.abs(fit.errors).argmax()]
    assert "the law of the other 15 runs misses the 1 held-out largest ones by" in extrapolation
    assert f"at worst {worst:+.2%} (run 15)" in extrapolation
    ends = fit.points.sizes[[0, -1]]
    terms = fit.final.law.coefficients * ends**-fit.final.law.exponents
    expected = ", ".join(f"{fall:.3g} ({name})" for fall, name in zip(terms[0] - terms[1], ("Nl", "D"), strict=True))
    assert falls == f"Over the sizes of the study the terms fall by {expected}."
    assert constant == "params_vision is 300,000 in all runs: the law has no term for it."
    assert skipped == "Left out: 2 runs failed."


def test_an_axis_that_does_nothing_is_said(make_runs: Callable[..., list[Run]]) -> None:
    flat = Law(("vision", "language", "data"), 0.6, np.array([0.0, 60.0, 400.0]), np.array([0.3, 0.37, 0.45]))
    text = " ".join(describe_fit(fit_study(collect(make_runs((3, 3, 4), 5e-3, law=flat)), draws=2)))
    assert "(Nv: less than the noise of one run)" in text and "(Nl)" in text


def test_cost_and_frontier(fit: StudyFit) -> None:
    cost = measure_cost(fit.points)
    optima = frontier(fit, [1e15, 1e20], cost)
    text = shown(frontier_table(optima))
    assert "1e+15" in text and f"{optima[0].loss:.4f}" in text and f"{optima[1].beyond:.3g} x" in text
    assert describe_cost(PartCost(2.0)) == "Cost: D · (2.00 Nv + 6.00 Nl) FLOPs, assumed."
    assert describe_cost(cost).endswith("FLOPs, measured on the runs, at most 0.0% off.")
    assert describe_cost(lambda sizes: 1.0) == "Cost: as given."


def test_json_holds_all_of_it(fit: StudyFit) -> None:
    cost = measure_cost(fit.points)
    read = json.loads(to_json(fit, frontier(fit, [1e15], cost), cost))
    assert read["all_runs"]["parameters"]["b"]["value"] == fit.final.law.exponents[0]
    assert read["without_held_out"]["parameters"]["E"]["value"] == fit.trial.law.floor
    low, value, high = (read["all_runs"]["parameters"]["c"][name] for name in ("low", "value", "high"))
    assert low <= value <= high
    (held,) = read["held_out"]
    assert held["label"] == "run 15" and held["error"] == pytest.approx(held["predicted"] / held["loss"] - 1)
    assert read["skipped"] == {"failed": 2} and read["constant"] == {"vision": 3e5}
    assert read["frontier"][0]["flops"] == 1e15 and read["cost"]["language"] > 0
