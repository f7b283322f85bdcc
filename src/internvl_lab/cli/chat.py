"""`chat`: ask a trained checkpoint about images, in the terminal."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--model", default="outputs/latest", help="run folder, weights folder or asset:NAME")
    parser.add_argument("--image", type=Path, action="append", default=[], help="may be given several times")
    parser.add_argument("--question", help="ask once and exit; without it, questions are read line by line")


def execute(args: argparse.Namespace) -> None:
    """Answer the question, or every line of standard input."""
    from PIL import Image

    from internvl_lab.api import load
    from internvl_lab.inference import answer

    model, processor = load(args.model)
    images = [Image.open(path) for path in args.image]
    for question in [args.question] if args.question else (line.strip() for line in sys.stdin):
        sys.stdout.write(answer(model, processor, question, images) + "\n")
        sys.stdout.flush()
