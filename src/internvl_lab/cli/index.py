"""`index`: build the sidecar index of shards and say what is wrong with them before training does."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from internvl_lab.data.index import ShardIndex
    from internvl_lab.data.scan import Problem

NAMED = 20
"""Problems that are logged one by one; `--report` names all."""
NO_LIMIT = 2**31


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument(
        "--shards", required=True, help="folder of WebDataset tars, or URLs such as https://h/{0..9}.tar"
    )
    parser.add_argument("--tokenizer", default="mini", help="folder with tokenizer.json, or `mini`")
    parser.add_argument("--system", default=None, help="system turn; default: the report's, empty for `mini`")
    parser.add_argument("--workers", type=int, default=None, help="processes; default: one a processor")
    parser.add_argument("--max-tokens", type=int, help="also name samples of more tokens, visual ones included")
    parser.add_argument("--max-tiles", type=int, help="also name samples of more tiles, thumbnails included")
    parser.add_argument("--image-tiles", type=int, help="tiling.max_tiles; default: that of the scale")
    parser.add_argument("--report", type=Path, help="file that gets every problem, one JSON object a line")


def execute(args: argparse.Namespace) -> None:
    """Index, then log counts and the first problems."""
    from internvl_lab.atomic import write_atomic
    from internvl_lab.data.index import load_or_build_index
    from internvl_lab.data.pool import usable_cpus
    from internvl_lab.data.quarantine import to_lines
    from internvl_lab.text import ChatTemplate, load_tokenizer

    log = logging.getLogger(__name__)
    mini = args.tokenizer == "mini"
    system = "" if mini and args.system is None else args.system
    template = ChatTemplate(load_tokenizer("asset:tokenizer" if mini else args.tokenizer), system)
    workers = usable_cpus() if args.workers is None else args.workers
    index = load_or_build_index(args.shards, template, workers)
    problems = _problems(args, index) if args.max_tokens or args.max_tiles else index.problems
    log.info("%s: %d shards, %d samples, %d problems", args.shards, len(index.shard_names), len(index), len(problems))
    for reason, count in Counter(problem[2] for problem in problems).most_common():
        log.info("  %s: %d", reason, count)
    for shard, key, reason, detail in problems[:NAMED]:
        log.info("  %s %s %s %s", shard, key, reason, detail)
    if len(problems) > NAMED and args.report is None:
        log.info("  ... and %d more: --report FILE names all", len(problems) - NAMED)
    if args.report is not None:
        names = ("shard", "key", "reason", "detail")
        write_atomic(args.report, to_lines([dict(zip(names, problem, strict=True)) for problem in problems]))


def _problems(args: argparse.Namespace, index: ShardIndex) -> list[Problem]:
    """Return the problems of the index and the samples over the limits."""
    from internvl_lab.config import PackingConfig, SourceConfig
    from internvl_lab.config.compose import compose
    from internvl_lab.data.selection import select

    tiling = compose(["scale=mini" if args.tokenizer == "mini" else "scale=full"]).tiling
    tiling = replace(tiling, max_tiles=args.image_tiles or tiling.max_tiles)
    packing = PackingConfig(max_tokens=args.max_tokens or NO_LIMIT, max_tiles=args.max_tiles or NO_LIMIT)
    return select(SourceConfig(), index, tiling, packing, "skip").problems
