"""`fit`: fit scaling laws to a study, say how well they predict its largest runs, and divide a budget by them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("sources", nargs="+", metavar="STUDY", help="study.csv or anything else that `compare` reads")
    parser.add_argument("--loss", default="val_loss", metavar="COLUMN", help="what falls with size (%(default)s)")
    parser.add_argument("--axes", default="vision,language,data", help="sizes to look at (%(default)s)")
    parser.add_argument(
        "--budget",
        type=float,
        nargs="+",
        metavar="FLOPS",
        help="budgets to divide; default: 1, 10 and 100 times the dearest run",
    )
    parser.add_argument("--draws", type=int, default=200, help="bootstrap draws (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write laws, intervals and held-out runs there")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw law.png and frontier.png there")


def execute(args: argparse.Namespace) -> None:
    """Fit, print, write."""
    import numpy as np
    from rich.console import Console

    from internvl_lab.atomic import write_atomic
    from internvl_lab.errors import ConfigError
    from internvl_lab.scaling import collect, fit_study, frontier, measure_cost, read_runs
    from internvl_lab.scaling.fit_plot import draw_frontier, draw_law
    from internvl_lab.scaling.fit_report import describe_cost, describe_fit, fit_table, frontier_table, to_json

    if args.draws < 2:
        raise ConfigError(f"--draws {args.draws} must be at least 2")
    points = collect(read_runs(args.sources), args.loss, [axis for axis in args.axes.split(",") if axis])
    fit = fit_study(points, args.draws, args.seed)
    console = Console()
    console.print(fit_table(fit))
    for line in describe_fit(fit):
        console.print(line, markup=False, highlight=False)
    try:
        cost = measure_cost(points)
        dearest = float(np.nanmax(points.flops))
        optima = frontier(fit, args.budget or [dearest, 10 * dearest, 100 * dearest], cost)
    except ConfigError as error:
        if args.budget:
            raise
        cost, optima = None, []
        sys.stderr.write(f"no frontier: {error}\n")
    if cost is not None:
        console.print(frontier_table(optima))
        console.print(describe_cost(cost), markup=False, highlight=False)
    if args.json:
        write_atomic(args.json, to_json(fit, optima, cost))
    if args.plot:
        write_atomic(args.plot / "law.png", draw_law(fit))
        if optima:
            write_atomic(args.plot / "frontier.png", draw_frontier(fit, optima))
