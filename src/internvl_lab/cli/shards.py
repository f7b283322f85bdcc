"""`shards`: the authors' meta JSON and JSONL records become WebDataset shards with a report of what was rejected."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--meta", type=Path, required=True, help="meta JSON: {name: {root, annotation, ...}}")
    parser.add_argument("--out", type=Path, required=True, help="folder that gets one folder of shards a source")


def execute(args: argparse.Namespace) -> None:
    """Convert and log one line a source; the reasons stand in `rejected.jsonl`."""
    from internvl_lab.data.convert import convert

    log = logging.getLogger(__name__)
    report = convert(args.meta, args.out)
    for name, source in report.sources.items():
        rejected = ", ".join(f"{count} {reason}" for reason, count in source.rejected.items()) or "none"
        log.info("%s: %d samples in %d shards, rejected: %s", name, source.written, source.shards, rejected)
    log.info("%d written, %d rejected: %s", report.num_written, report.num_rejected, args.out)
