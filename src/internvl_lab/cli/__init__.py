"""Command line beside `train.py`: each command is one module with `configure(parser)` and `execute(args)`."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence
from types import ModuleType

from internvl_lab.errors import InternVLLabError

COMMANDS = {
    "shards": "convert the authors' meta JSON and JSONL files into indexed WebDataset shards",
    "index": "index a folder of shards and report what is wrong with it",
    "inspect": "show what a configuration will read: shares, fill, histograms, encoded samples",
    "miniworld": "generate the embedded dataset",
    "tokenizer": "train the mini family's tokenizer on miniworld's text",
    "assets": "export a trained part as a shipped asset",
    "sizes": "count the parameters of the seven published sizes",
    "convert": "convert weights between transformers' format and the authors', whole or by parts",
    "chat": "ask a trained checkpoint about images",
    "bench": "measure against named peers in one run",
}


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = argparse.ArgumentParser(prog="python -m internvl_lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        _module(name).configure(commands.add_parser(name, help=summary, description=summary))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run one command, return the exit status."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        _module(args.command).execute(args)
    except InternVLLabError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"internvl_lab.cli.{name}")
