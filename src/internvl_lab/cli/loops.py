"""`loops`: generate a miniworld source in which a share of the answers loops, to study what that does to a model."""

from __future__ import annotations

import argparse
import logging
import shlex
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--out", type=Path, required=True, help="folder that gets the shards; an older one is replaced")
    parser.add_argument("--share", type=float, required=True, help="share of samples that loop, for example 0.02")
    parser.add_argument("--split", choices=("pretrain", "finetune"), default="finetune", help="(%(default)s)")
    parser.add_argument("--samples", type=int, default=25200, help="samples in all (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the samples and of the loops (%(default)s)")
    parser.add_argument("--task", action="append", default=[], help="tasks take turns; may be repeated; default: all")
    parser.add_argument("--max-chars", type=int, default=300, help="length of a looping answer (%(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="processes that paint (%(default)s)")


def execute(args: argparse.Namespace) -> None:
    """Write the shards, then log where they are and how to train on them."""
    import shutil

    from internvl_lab.curation.loops import plant_loops
    from internvl_lab.data.miniworld.build import make_parallel
    from internvl_lab.data.miniworld.sample import check_choice
    from internvl_lab.data.shards import write_shards

    tasks = check_choice(args.split, args.task)
    samples = make_parallel((args.split, 0, args.samples, args.seed, tasks), args.processes)
    planted = plant_loops(samples, args.samples, args.share, args.seed, args.max_chars)
    partial = args.out.with_name(f".{args.out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    write_shards(planted, partial, 1000, progress=True, total=args.samples)
    shutil.rmtree(args.out, ignore_errors=True)
    partial.rename(args.out)
    info = logging.getLogger(__name__).info
    info("%s: %d samples, %d of them with a loop", args.out, args.samples, round(args.share * args.samples))
    info(
        "train on them: python train.py %s", shlex.join([f"data.mixtures.{args.split}.{args.split}.shards={args.out}"])
    )
