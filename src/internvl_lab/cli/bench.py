"""`bench`: measure one training step, or the loss head alone, against named peers on one CPU thread."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from internvl_lab.bench import Report


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the measurements `step` and `head` with their options."""
    measurements = parser.add_subparsers(dest="measurement", required=True, metavar="step|head")
    step = measurements.add_parser("step", help="a training step against transformers' padded and packed steps")
    step.add_argument("--size", default="small", choices=("small", "tiny"), help="tiny is for tests")
    step.add_argument("--samples", type=int, help="default: the size's own")
    head = measurements.add_parser("head", help="the loss head against logits on all positions")
    head.add_argument("--rows", type=int, default=512, help="tokens")
    head.add_argument("--vocab-size", type=int, default=151674)
    head.add_argument("--hidden-size", type=int, default=896)
    head.add_argument("--supervised", type=float, default=0.15, help="share of rows with a label")
    for measurement in (step, head):
        measurement.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
        measurement.add_argument("--repeats", type=int, default=3)
        measurement.add_argument("--seed", type=int, default=0)
        measurement.add_argument("--json", type=Path, metavar="FILE", help="write the report there as well")


def execute(args: argparse.Namespace) -> None:
    """Measure, show the table, write the JSON file."""
    from rich.console import Console

    from internvl_lab.bench import write_json
    from internvl_lab.bench.report import ratio_line, summary_table
    from internvl_lab.errors import ConfigError

    if args.repeats < 1:
        raise ConfigError("--repeats must be at least 1")
    report = _step(args) if args.measurement == "step" else _head(args)
    if args.json:  # first, so that a terminal's trouble cannot lose a measurement
        write_json(report, args.json)
    console = Console()
    console.print(summary_table(report))
    console.print(ratio_line(report))


def _step(args: argparse.Namespace) -> Report:
    from dataclasses import replace

    from internvl_lab.bench import WORKLOADS, bench_step
    from internvl_lab.errors import ConfigError

    workload = WORKLOADS[args.size].with_dtype(args.dtype)
    if args.samples is not None:
        if args.samples < 1:
            raise ConfigError("--samples must be at least 1")
        workload = replace(workload, num_samples=args.samples)
    return bench_step(workload, args.repeats, args.seed)


def _head(args: argparse.Namespace) -> Report:
    from internvl_lab.bench import HeadSetting, bench_head

    setting = HeadSetting(args.rows, args.vocab_size, args.hidden_size, args.supervised, args.dtype)
    return bench_head(setting, args.repeats, args.seed)
