"""`assets`: export one part (or all) of a finished run as package data: bf16 safetensors with provenance."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--run", type=Path, required=True, help="run folder, for example outputs/latest")
    parser.add_argument("--parts", default="vision,projector,language", help="comma-separated parts, or adapter")
    parser.add_argument("--out", type=Path, required=True, help="asset folder: src/internvl_lab/assets/NAME")


def execute(args: argparse.Namespace) -> None:
    """Write the asset and log its size."""
    from internvl_lab.api import export_asset

    path = export_asset(args.run, tuple(args.parts.split(",")), args.out)
    logging.getLogger(__name__).info("%s: %.2f MB", path, path.stat().st_size / 1e6)
