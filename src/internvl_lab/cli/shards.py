"""`shards`: the authors' meta JSON and JSONL records become WebDataset shards with a report of what was rejected."""

from __future__ import annotations

import argparse
import logging
import shlex
from pathlib import Path

from internvl_lab.constants import MAX_FRAMES, MIN_FRAMES


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--meta", type=Path, required=True, help="meta JSON: {name: {root, annotation, ...}}")
    parser.add_argument("--out", type=Path, required=True, help="folder that gets one folder of shards a source")
    parser.add_argument("--min-frames", type=int, default=MIN_FRAMES, help="fewest frames of a video (%(default)s)")
    parser.add_argument("--max-frames", type=int, default=MAX_FRAMES, help="most frames of a video (%(default)s)")


def execute(args: argparse.Namespace) -> None:
    """Convert and log one line a source and how to train on them; the reasons stand in `rejected.jsonl`."""
    from internvl_lab.data.convert import convert

    log = logging.getLogger(__name__)
    report = convert(args.meta, args.out, min_frames=args.min_frames, max_frames=args.max_frames)
    for name, source in report.sources.items():
        rejected = ", ".join(f"{count} {reason}" for reason, count in source.rejected.items()) or "none"
        log.info("%s: %d samples in %d shards, rejected: %s", name, source.written, source.shards, rejected)
    log.info("%d written, %d rejected: %s", report.num_written, report.num_rejected, args.out)
    log.info("train on them: python train.py %s", shlex.join(report.overrides))
