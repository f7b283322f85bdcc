"""`miniworld`: generate the embedded dataset as shards, to look at it or to train on it elsewhere."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--out", type=Path, required=True, help="folder that gets pretrain/, finetune/ and val/")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pretrain", type=int, default=1100, help="samples")
    parser.add_argument("--finetune", type=int, default=1100, help="samples")
    parser.add_argument("--val", type=int, default=1100, help="samples over all tasks")


def execute(args: argparse.Namespace) -> None:
    """Generate what is missing and log the folders."""
    from internvl_lab.config import MiniworldConfig
    from internvl_lab.data.miniworld import ensure_shards

    config = MiniworldConfig(args.seed, args.pretrain, args.finetune, 0, args.val)
    for split, folder in ensure_shards(config, args.out).items():
        logging.getLogger(__name__).info("%s: %s", split, folder)
