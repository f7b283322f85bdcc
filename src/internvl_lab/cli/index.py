"""`index`: build the sidecar index of a folder of shards and say what is wrong before training does."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--shards", type=Path, required=True, help="folder of WebDataset tars")
    parser.add_argument("--tokenizer", default="mini", help="folder with tokenizer.json, or `mini`")
    parser.add_argument("--system", default=None, help="system turn; default: the report's, empty for `mini`")


def execute(args: argparse.Namespace) -> None:
    """Index, then log counts and every problem."""
    from internvl_lab.data.index import load_or_build_index
    from internvl_lab.text import ChatTemplate, load_tokenizer

    log = logging.getLogger(__name__)
    mini = args.tokenizer == "mini"
    system = "" if mini and args.system is None else args.system
    template = ChatTemplate(load_tokenizer("asset:tokenizer" if mini else args.tokenizer), system)
    index = load_or_build_index(args.shards, template)
    log.info(
        "%s: %d shards, %d samples, %d problems", args.shards, len(index.shard_names), len(index), len(index.problems)
    )
    for reason, count in Counter(problem[2] for problem in index.problems).most_common():
        log.info("  %s: %d", reason, count)
    for shard, key, reason, detail in index.problems:
        log.info("  %s %s %s %s", shard, key, reason, detail)
