"""`bench`: measure a step, the loss head, packed attention or curation against named peers on one CPU thread."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from internvl_lab.bench import Report


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the measurements `step`, `head`, `attention` and `curation` with their options."""
    measurements = parser.add_subparsers(dest="measurement", required=True, metavar="step|head|attention|curation")
    step = measurements.add_parser("step", help="a training step against transformers' padded and packed steps")
    step.add_argument("--size", default="small", choices=("small", "tiny"), help="tiny is for tests")
    step.add_argument("--samples", type=int, help="default: the size's own")
    head = measurements.add_parser("head", help="the loss head against logits on all positions")
    head.add_argument("--rows", type=int, default=512, help="tokens")
    head.add_argument("--vocab-size", type=int, default=151674)
    head.add_argument("--hidden-size", type=int, default=896)
    head.add_argument("--supervised", type=float, default=0.15, help="share of rows with a label")
    attention = measurements.add_parser("attention", help="packed attention: the backend `auto` against all others")
    attention.add_argument("--tokens", type=int, default=2048, help="of a pack")
    attention.add_argument("--samples", type=int, default=16, help="in a pack, of random lengths")
    attention.add_argument("--heads", type=int, default=4)
    attention.add_argument("--key-value-heads", type=int, default=2)
    attention.add_argument("--head-size", type=int, default=64)
    curation = measurements.add_parser("curation", help="curation's rules against the authors' one rule")
    curation.add_argument("--records", type=int, default=1000, help="of 1 kB, for the rates")
    curation.add_argument("--csv", type=Path, metavar="FILE", help="write recall and precision of every rule there")
    curation.add_argument("--memory", type=int, nargs="+", default=[], metavar="N", help="curate N generated records")
    for measurement in (step, head, attention):
        measurement.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    for measurement in (step, head, attention, curation):
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
    report = {"step": _step, "head": _head, "attention": _attention, "curation": _curation}[args.measurement](args)
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


def _attention(args: argparse.Namespace) -> Report:
    from internvl_lab.bench import AttentionSetting, bench_attention

    setting = AttentionSetting(args.tokens, args.samples, args.heads, args.key_value_heads, args.head_size, args.dtype)
    return bench_attention(setting, args.repeats, args.seed)


def _curation(args: argparse.Namespace) -> Report:
    from internvl_lab.bench.curation import bench_curation

    return bench_curation(args.records, args.repeats, args.seed, args.csv, args.memory)
