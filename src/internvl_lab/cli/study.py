"""`study`: run the rows of a sweep as processes of their own, and keep one table; or list them with their cost.

::

    overrides ─ compose ─> RunConfig with a sweep ─┬─ --dry-run ─> rows, parameters, steps, FLOPs
                                                   └─ run ─> outputs/<experiment>/study-<hash>/study.csv
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from internvl_lab.config import RunConfig
    from internvl_lab.scaling import Row


def configure(parser: argparse.ArgumentParser) -> None:
    """Take Hydra overrides, and how the rows run."""
    parser.add_argument(
        "overrides", nargs="+", metavar="KEY=VALUE", help="sweep=NAME or an experiment that has one, and any overrides"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the rows and what they cost; run nothing")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="rows that run side by side (default 1)")


def execute(args: argparse.Namespace) -> None:
    """Run or list the rows.

    Raises:
        ConfigError: no sweep, an override on one of its axes, or a row that does not compose.
        InternVLLabError: a row failed twice; the others' results stand.
    """
    from rich.console import Console

    from internvl_lab.config.compose import compose_raw, plain, typed_config
    from internvl_lab.run import Invocation, run
    from internvl_lab.run_study import study_rows

    raw = compose_raw(args.overrides)
    config = typed_config(raw)
    _check(config, args.overrides, args.jobs)
    if args.dry_run:
        Console().print(cost_table(study_rows(config, args.overrides), args.overrides))
    else:
        run(config, Invocation(plain(raw), tuple(args.overrides), jobs=args.jobs))


def _check(config: RunConfig, overrides: Sequence[str], jobs: int) -> None:
    from internvl_lab.errors import ConfigError

    if not config.sweep.axes:
        raise ConfigError("there is no study to run: name a sweep (sweep=loss) or an experiment that has one")
    chosen = {override.split("=")[0].lstrip("+~") for override in overrides} & config.sweep.keys
    if chosen:
        raise ConfigError(f"{min(chosen)} is set by the sweep {config.sweep.name}: leave it out, or set sweep=none")
    if jobs < 1:
        raise ConfigError(f"--jobs={jobs} must be at least 1")


def cost_table(rows: Sequence[Row], overrides: Sequence[str]) -> Table:
    """Lay out the rows of a study with what each costs, and the total.

    FLOPs are the required ones of training on the average pack, those that `sweep.budget_flops` holds equal. GPU hours
    are the cost plan's (`scaling.cost`) for as many.
    """
    from rich import box
    from rich.table import Table

    from internvl_lab.models import build_on_meta, count_parameters
    from internvl_lab.run_study import row_config

    table = Table(title=f"study of {len(rows)} rows", box=box.SIMPLE, show_footer=True)
    table.add_column("#", justify="right")
    table.add_column("row", overflow="fold", footer="total")
    for name in ("parameters", "packs", "TFLOP", "GPU h"):
        table.add_column(name, justify="right")
    costs = []
    for number, row in enumerate(rows, 1):
        config = row_config(row, overrides)
        packs = sum(stage.max_steps * config.packs_per_step(stage) for stage in config.stages.values())
        parameters = count_parameters(build_on_meta(config.model))["total"]
        costs.append(_cost(config))
        table.add_row(str(number), row.label, f"{parameters:,}", f"{packs:,}", *_cells(*costs[-1]))
    totals = _cells(*map(sum, zip(*costs, strict=True)))
    for column, text in zip(table.columns[-2:], totals, strict=True):
        column.footer = text
    return table


def _cost(config: RunConfig) -> tuple[float, float]:
    """Return the FLOPs and GPU hours of a row.

    The plan counts full packs where it cannot measure any, so its hours are taken for the FLOPs of the average pack.
    """
    from internvl_lab.scaling import plan_row, run_flops

    flops, planned = run_flops(config), plan_row(config)
    return flops, planned.gpu_hours * flops / planned.flops


def _cells(flops: float, hours: float) -> tuple[str, str]:
    return f"{flops / 1e12:,.4g}", f"{hours:,.3g}"
