"""`vlmevalkit`: put a checkpoint into a checkout of VLMEvalKit, so that its own `run.py` evaluates it."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

EXAMPLE = "python -m internvl_lab vlmevalkit checkpoint=outputs/latest --into VLMEvalKit --name my-model"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"{EXAMPLE}\n\nkeys: config/harness.py. internvl-lab has to be installed beside VLMEvalKit."
    parser.add_argument("words", nargs="+", metavar="key=value", help="checkpoint, max_tiles, dtype, device, ...")
    parser.add_argument("--into", type=Path, required=True, metavar="DIR", help="checkout of VLMEvalKit")
    parser.add_argument("--name", default="internvl-lab", help="name of the model there (%(default)s)")


def execute(args: argparse.Namespace) -> None:
    """Write, then show what was written and how to go on."""
    from internvl_lab.checkpoints import resolve_source
    from internvl_lab.config.evaluate import read_words
    from internvl_lab.config.harness import harness_config
    from internvl_lab.evaluation.adapters.vlmevalkit import install

    cfg = harness_config(read_words(args.words))
    resolve_source(cfg.checkpoint)  # a wrong path is found here, and not by VLMEvalKit
    log = logging.getLogger(__name__)
    for name, path in install(args.into, args.name, cfg).items():
        log.info("%s: %s", name, path)
    log.info("now: cd %s && python run.py --model %s --data MMStar", args.into, args.name)
