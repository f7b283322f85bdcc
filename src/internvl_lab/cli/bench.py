"""`bench`: measure a step, its parts, generation, packing, the loader or curation against named peers.

To add a measurement: a function that adds its options, one that runs it, a line in `MEASUREMENTS`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

Parser = argparse.ArgumentParser
Result = tuple[Any, "list[RenderableType]"]
"""(what `--json` writes, what the terminal shows)."""


def configure(parser: Parser) -> None:
    """Add the measurements with their options."""
    commands = parser.add_subparsers(dest="measurement", required=True, metavar="|".join(MEASUREMENTS))
    for name, (summary, add_options, _) in MEASUREMENTS.items():
        command = commands.add_parser(name, help=summary)
        add_options(command)
        command.add_argument("--repeats", type=int, default=3)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--json", type=Path, metavar="FILE", help="write the report there as well")


def execute(args: argparse.Namespace) -> None:
    """Measure, write the JSON file, show the table."""
    from rich.console import Console

    from internvl_lab.bench import write_json
    from internvl_lab.errors import ConfigError

    if args.repeats < 1:
        raise ConfigError("--repeats must be at least 1")
    report, shown = MEASUREMENTS[args.measurement][2](args)
    if args.json:  # first, so that a terminal's trouble cannot lose a measurement
        write_json(report, args.json)
    console = Console()
    for part in shown:
        console.print(part)


def _shown(report: Any) -> Result:
    """Show a `Report` as a table and a line of ratios."""
    from internvl_lab.bench.report import ratio_line, summary_table

    return report, [summary_table(report), ratio_line(report)]


def _add_dtype(parser: Parser) -> None:
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))


def _add_device(parser: Parser) -> None:
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))


def _add_step(parser: Parser) -> None:
    _add_device(parser)
    parser.add_argument("--size", default="small", help="small (default), tiny (for tests), mini, 1b, 2b or 8b")
    parser.add_argument("--stage", help="what trains: stage1, stage2 or finetune_lora; default: stage2, for 8b stage1")
    parser.add_argument("--precision", help="fp32, bf16 or bf16-mixed; default: fp32 on a CPU, bf16 on a GPU")
    parser.add_argument("--attention", default="auto", help="packed attention of ours, as model.attention")
    parser.add_argument("--compile", action="store_true", help="compile our layers")
    parser.add_argument("--checkpointing", default="auto", help="what ours recomputes: none, full, auto (what fits)")
    parser.add_argument("--samples", type=int, help="default: the size's own, as for the next three")
    parser.add_argument("--pack-tokens", type=int, help="most tokens of a pack")
    parser.add_argument("--pack-tiles", type=int, help="most tiles of a pack")
    parser.add_argument("--batch-size", type=int, help="samples of a padded peer's batch")


def _step(args: argparse.Namespace) -> Result:
    from dataclasses import replace

    from internvl_lab.bench import bench_step
    from internvl_lab.bench.setting import find_setting

    setting = find_setting(args.size, args.device, args.stage, args.precision, args.attention)
    limits = {
        "num_samples": args.samples,
        "pack_tokens": args.pack_tokens,
        "pack_tiles": args.pack_tiles,
        "batch_size": args.batch_size,
    }
    workload = replace(setting.workload, **{name: value for name, value in limits.items() if value is not None})
    chosen = replace(setting, workload=workload, compiled=args.compile, checkpointing=args.checkpointing)
    return _shown(bench_step(chosen, args.repeats, args.seed))


def _add_head(parser: Parser) -> None:
    _add_device(parser)
    parser.add_argument("--rows", type=int, default=4096, help="tokens")
    parser.add_argument("--vocab-size", type=int, default=151674)
    parser.add_argument("--hidden-size", type=int, default=896)
    parser.add_argument("--supervised", type=float, default=0.15, help="share of rows with a label")
    _add_dtype(parser)


def _head(args: argparse.Namespace) -> Result:
    from internvl_lab.bench import HeadSetting, bench_head

    setting = HeadSetting(args.rows, args.vocab_size, args.hidden_size, args.supervised, args.dtype, device=args.device)
    return _shown(bench_head(setting, args.repeats, args.seed))


def _add_attention(parser: Parser) -> None:
    _add_device(parser)
    parser.add_argument("--tokens", type=int, default=2048, help="of a pack")
    parser.add_argument("--samples", type=int, default=16, help="in a pack, of random lengths")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--key-value-heads", type=int, default=2)
    parser.add_argument("--head-size", type=int, default=64)
    _add_dtype(parser)


def _attention(args: argparse.Namespace) -> Result:
    from internvl_lab.bench import AttentionSetting, bench_attention

    heads = (args.heads, args.key_value_heads, args.head_size)
    setting = AttentionSetting(args.tokens, args.samples, *heads, args.dtype, args.device)
    return _shown(bench_attention(setting, args.repeats, args.seed))


def _add_generate(parser: Parser) -> None:
    parser.add_argument("--size", default="small", choices=("small", "tiny"), help="tiny is for tests")
    parser.add_argument("--samples", type=int, default=8, help="answers to the prompt")
    parser.add_argument("--prompt-tokens", type=int, default=1000)
    parser.add_argument("--tiles", type=int, default=13, help="of the prompt; their visual tokens count")
    parser.add_argument("--new-tokens", type=int, default=32, help="of each answer")
    _add_dtype(parser)


def _generate(args: argparse.Namespace) -> Result:
    from internvl_lab.bench.generate import GenerateSetting, bench_generate

    sizes = (args.size, args.samples, args.prompt_tokens, args.tiles, args.new_tokens, args.dtype)
    return _shown(bench_generate(GenerateSetting(*sizes), args.repeats, args.seed))


def _add_packing(parser: Parser) -> None:
    parser.add_argument("--pairs", type=Path, required=True, help="JSON list of [tokens, tiles], alone or as `pairs`")
    parser.add_argument("--max-tokens", type=int, default=16384)
    parser.add_argument("--max-tiles", type=int, default=48)
    parser.add_argument("--block-size", type=int, default=8192, help="samples that are packed together")


def _packing(args: argparse.Namespace) -> Result:
    from internvl_lab.bench.packing import PackingSetting, bench_packing, packing_table, read_pairs

    setting = PackingSetting(args.max_tokens, args.max_tiles, args.block_size, args.seed, args.repeats)
    report = bench_packing(read_pairs(args.pairs), setting)
    return report, [packing_table(report)]


def _add_loader(parser: Parser) -> None:
    parser.add_argument("--shards", type=Path, help="folder of WebDataset tars; default: miniworld pages, made anew")
    parser.add_argument("--tokenizer", default="mini", help="folder with tokenizer.json, or `mini`")
    parser.add_argument("--samples", type=int, default=160, help="use the first so many; 0 = all")


def _loader(args: argparse.Namespace) -> Result:
    from internvl_lab.bench.loader import LoaderSetting, bench_loader, loader_table

    setting = LoaderSetting(str(args.shards or ""), args.tokenizer, args.samples, args.seed, args.repeats)
    report = bench_loader(setting)
    return report, [loader_table(report)]


def _add_curation(parser: Parser) -> None:
    parser.add_argument("--records", type=int, default=1000, help="of 1 kB, for the rates")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write recall and precision of every rule there")
    parser.add_argument("--memory", type=int, nargs="+", default=[], metavar="N", help="curate N generated records")


def _curation(args: argparse.Namespace) -> Result:
    from internvl_lab.bench.curation import bench_curation

    return _shown(bench_curation(args.records, args.repeats, args.seed, args.csv, args.memory))


MEASUREMENTS: dict[str, tuple[str, Callable[[Parser], None], Callable[[argparse.Namespace], Result]]] = {
    "step": ("a training step against transformers' padded and packed steps", _add_step, _step),
    "head": ("the loss head against logits on all positions", _add_head, _head),
    "attention": ("packed attention: the backend `auto` against all others", _add_attention, _attention),
    "generate": ("several answers to one prompt against transformers' generate", _add_generate, _generate),
    "packing": ("the plan against other packing policies", _add_packing, _packing),
    "loader": ("one loader worker against others' pipelines", _add_loader, _loader),
    "curation": ("curation's rules against the authors' one rule", _add_curation, _curation),
}
"""Name to (summary, function that adds the options, function that measures)."""
