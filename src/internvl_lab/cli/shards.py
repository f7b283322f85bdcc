"""`shards`: the authors' meta JSON and JSONL records become WebDataset shards with a report of what was rejected."""

from __future__ import annotations

import argparse
import logging
import shlex
from pathlib import Path

from internvl_lab.constants import STORED_FRAMES


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--meta", type=Path, required=True, help="meta JSON: {name: {root, annotation, ...}}")
    parser.add_argument("--out", type=Path, required=True, help="folder that gets one folder of shards a source")
    parser.add_argument("--workers", type=int, default=None, help="processes; default: one a processor")
    parser.add_argument("--samples-per-shard", type=int, default=1000, help="lines that become a shard (%(default)s)")
    parser.add_argument(
        "--stored-frames",
        type=int,
        default=STORED_FRAMES,
        help="most frames kept of a video; training draws from them (%(default)s)",
    )


def execute(args: argparse.Namespace) -> None:
    """Convert, or go on after an interrupt, and log one line a source and how to train on them."""
    from internvl_lab.data.convert import convert
    from internvl_lab.data.pool import usable_cpus

    log = logging.getLogger(__name__)
    workers = usable_cpus() if args.workers is None else args.workers
    report = convert(args.meta, args.out, args.samples_per_shard, None, args.stored_frames, workers)
    for name, source in report.sources.items():
        rejected = ", ".join(f"{count} {reason}" for reason, count in source.rejected.items()) or "none"
        log.info("%s: %d samples in %d shards, rejected: %s", name, source.written, source.shards, rejected)
    log.info("%d written, %d rejected (%s)", report.num_written, report.num_rejected, args.out / "rejected.jsonl")
    log.info("train on them: python train.py %s", shlex.join(report.overrides))
