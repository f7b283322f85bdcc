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
    "curate": "drop what would make a model loop from conversation data, with a report",
    "curate review": "look at what curate flagged, and keep or reject it by hand",
    "miniworld": "generate the embedded dataset",
    "loops": "generate miniworld samples of which a share loops, to study filtering",
    "tokenizer": "train the mini family's tokenizer on miniworld's text",
    "assets": "export a trained part as a shipped asset",
    "sizes": "count the parameters of the seven published sizes",
    "convert": "convert weights between transformers' format and the authors', whole or by parts",
    "evaluate": "score a checkpoint on benchmarks, with predictions, tables and published rows",
    "vlmevalkit": "let a checkout of VLMEvalKit evaluate a checkpoint",
    "chat": "ask a trained checkpoint about images",
    "test-time": "draw many answers to each question, vote or re-rank, and plot what it buys",
    "study": "expand a sweep into rows and run them, side by side and resumably; or say what they would cost",
    "compare": "put runs side by side, from folders, a study's table or W&B",
    "fit": "fit scaling laws to a study, and divide a budget of FLOPs by them",
    "bench": "measure against named peers in one run",
}


_TO_MODULE = str.maketrans("- ", "__")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = argparse.ArgumentParser(prog="python -m internvl_lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        _module(name).configure(commands.add_parser(name, help=summary, description=summary))
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; a command may have two words (`curate review`), its options any place between overrides."""
    words = list(argv)
    if " ".join(words[:2]) in COMMANDS:
        words[:2] = [" ".join(words[:2])]
    if not words or words[0] not in COMMANDS:
        return build_parser().parse_args(words)
    name, *rest = words
    parser = argparse.ArgumentParser(prog=f"python -m internvl_lab {name}", description=COMMANDS[name])
    _module(name).configure(parser)
    known = argparse.Namespace(command=name)
    try:
        return parser.parse_intermixed_args(rest, known)
    except TypeError:  # argparse does not mix the options of a command with commands of its own (`bench`)
        return parser.parse_args(rest, known)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run one command, return the exit status."""
    args = parse(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        _module(args.command).execute(args)
    except InternVLLabError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130  # as a shell says it
    return 0


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"internvl_lab.cli.{name.translate(_TO_MODULE)}")
