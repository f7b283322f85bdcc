"""`bench`: measure a step, the loss head, packed attention, packing or the loader against named peers on one thread."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from internvl_lab.bench import Report

    Shown = tuple[Any, ...]
    """A report, and what the terminal shows of it."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the measurements with their options."""
    names = "step|head|attention|packing|loader"
    measurements = parser.add_subparsers(dest="measurement", required=True, metavar=names)
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
    for measurement in (step, head, attention):
        measurement.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    packing, loader = _configure_data(measurements)
    for measurement in (step, head, attention, packing, loader):
        measurement.add_argument("--repeats", type=int, default=3)
        measurement.add_argument("--seed", type=int, default=0)
        measurement.add_argument("--json", type=Path, metavar="FILE", help="write the report there as well")


def _configure_data(measurements: Any) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Add the measurements of the data path."""
    packing: argparse.ArgumentParser = measurements.add_parser(
        "packing", help="the plan against other packing policies"
    )
    packing.add_argument("--pairs", type=Path, required=True, help="JSON list of [tokens, tiles], alone or as `pairs`")
    packing.add_argument("--max-tokens", type=int, default=16384)
    packing.add_argument("--max-tiles", type=int, default=48)
    packing.add_argument("--block-size", type=int, default=8192, help="samples that are packed together")
    loader: argparse.ArgumentParser = measurements.add_parser(
        "loader", help="one loader worker against others' pipelines"
    )
    loader.add_argument("--shards", type=Path, help="folder of WebDataset tars; default: miniworld pages, made anew")
    loader.add_argument("--tokenizer", default="mini", help="folder with tokenizer.json, or `mini`")
    loader.add_argument("--samples", type=int, default=160, help="use the first so many; 0 = all")
    return packing, loader


def execute(args: argparse.Namespace) -> None:
    """Measure, show the table, write the JSON file."""
    from rich.console import Console

    from internvl_lab.bench import write_json
    from internvl_lab.errors import ConfigError

    if args.repeats < 1:
        raise ConfigError("--repeats must be at least 1")
    measurements = {
        "step": _step,
        "head": _head,
        "attention": _attention,
        "packing": _packing,
        "loader": _loader,
    }
    report, *lines = measurements[args.measurement](args)
    if args.json:  # first, so that a terminal's trouble cannot lose a measurement
        write_json(report, args.json)
    for line in lines:
        Console().print(line)


def _with_table(report: Report) -> Shown:
    from internvl_lab.bench.report import ratio_line, summary_table

    return report, summary_table(report), ratio_line(report)


def _step(args: argparse.Namespace) -> Shown:
    from dataclasses import replace

    from internvl_lab.bench import WORKLOADS, bench_step
    from internvl_lab.errors import ConfigError

    workload = WORKLOADS[args.size].with_dtype(args.dtype)
    if args.samples is not None:
        if args.samples < 1:
            raise ConfigError("--samples must be at least 1")
        workload = replace(workload, num_samples=args.samples)
    return _with_table(bench_step(workload, args.repeats, args.seed))


def _head(args: argparse.Namespace) -> Shown:
    from internvl_lab.bench import HeadSetting, bench_head

    setting = HeadSetting(args.rows, args.vocab_size, args.hidden_size, args.supervised, args.dtype)
    return _with_table(bench_head(setting, args.repeats, args.seed))


def _attention(args: argparse.Namespace) -> Shown:
    from internvl_lab.bench import AttentionSetting, bench_attention

    setting = AttentionSetting(args.tokens, args.samples, args.heads, args.key_value_heads, args.head_size, args.dtype)
    return _with_table(bench_attention(setting, args.repeats, args.seed))


def _packing(args: argparse.Namespace) -> Shown:
    from internvl_lab.bench.packing import PackingSetting, bench_packing, packing_table, read_pairs

    setting = PackingSetting(args.max_tokens, args.max_tiles, args.block_size, args.seed, args.repeats)
    report = bench_packing(read_pairs(args.pairs), setting)
    return report, packing_table(report)


def _loader(args: argparse.Namespace) -> Shown:
    from internvl_lab.bench.loader import LoaderSetting, bench_loader, loader_table

    setting = LoaderSetting(str(args.shards or ""), args.tokenizer, args.samples, args.seed, args.repeats)
    report = bench_loader(setting)
    return report, loader_table(report)
