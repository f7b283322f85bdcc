"""`tokenizer`: train the mini family's byte-level BPE on miniworld's `pretrain` and `finetune` text."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

ROLES = ("user", "assistant", "system")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer.json")
    parser.add_argument("--vocab-size", type=int, default=640)
    parser.add_argument("--samples", type=int, default=8000, help="miniworld samples to read")


def execute(args: argparse.Namespace) -> None:
    """Train and save."""
    from internvl_lab.data.miniworld import tokenizer_corpus
    from internvl_lab.text import train_tokenizer

    corpus = tokenizer_corpus(args.samples, seed=0)
    # every turn opens with one of the roles, so each is worth a token of its own
    tokenizer = train_tokenizer((f"{ROLES[i % len(ROLES)]}\n{text}" for i, text in enumerate(corpus)), args.vocab_size)
    tokenizer.save_pretrained(args.out)
    logging.getLogger(__name__).info("%s: %d tokens", args.out, len(tokenizer))
