"""`curate`: drop from conversation data what would make a model loop, and say of every record why."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--in", dest="input", type=Path, metavar="PATH", help="meta JSON, JSONL file, folder of shards")
    given.add_argument("--rescore-from", type=Path, metavar="DIR", help="use the scores of an earlier run's folder")
    given.add_argument("--planted", action="store_true", help="write the labelled set with planted faults into --out")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is kept, rejected and reported")
    parser.add_argument("--root", type=Path, help="folder of a JSONL file's images; default: the file's own")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)")
    parser.add_argument("--reviews", type=Path, metavar="FILE", help="reviews.jsonl: what people decided")
    parser.add_argument("--seed", type=int, default=0, help="of --planted")
    parser.add_argument("overrides", nargs="*", help="for example curation.rules.repeated_ngrams.threshold=0.3")


def execute(args: argparse.Namespace) -> None:
    """Curate and log what became of each source; the reasons stand in the report."""
    from internvl_lab.config.compose import compose_curation
    from internvl_lab.curation.judging import open_scorers
    from internvl_lab.curation.pipeline import curate

    if args.planted:
        _plant(args.out, args.seed)
        return
    config = compose_curation(args.overrides)
    with open_scorers(config.judge, args.out) as scorers:
        summary = curate(
            args.input,
            args.out,
            config,
            root=args.root,
            workers=args.workers,
            scorers=scorers,
            reviews=args.reviews,
            rescore_from=args.rescore_from,
        )
    log = logging.getLogger(__name__)
    for name, source in summary["sources"].items():
        log.info("%s: %d of %d records kept", name, source["kept"], source["records"])
    fired = sorted(summary["rules"].items(), key=lambda rule: -rule[1]["fired"])
    log.info("rejected: %s", ", ".join(f"{name} {rule['fired']}" for name, rule in fired if rule["fired"]) or "none")
    log.info("%d kept, %d rejected: %s", summary["kept"], summary["rejected"], args.out / "report.html")


def _plant(out: Path, seed: int) -> None:
    """Write the labelled set."""
    from internvl_lab.curation.planted import write_planted

    count = write_planted(out, seed)
    logging.getLogger(__name__).info(
        "%d records, of which %d are faulty: %s", count["records"], count["faulty"], out / "meta.json"
    )
