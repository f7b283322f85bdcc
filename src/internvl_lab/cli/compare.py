"""`compare`: put runs side by side, from run folders, a study's table, offline W&B folders or the W&B service."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="RUN",
        help="run folder, study.csv or its folder, folder of offline W&B runs, wandb:ENTITY/PROJECT[/RUN_ID] (network)",
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/compare"), help="folder of the report (%(default)s)")
    parser.add_argument("--title", default="Comparison", help="heading (%(default)s)")
    parser.add_argument("--baseline", metavar="LABEL", help="row the others are compared with (the first)")
    parser.add_argument("--group", help="only runs of this W&B group, by default a run's experiment")
    parser.add_argument(
        "--push",
        metavar="PROJECT",
        help="also log table and pictures as a run of [ENTITY/]PROJECT (network; WANDB_MODE=offline keeps it in OUT)",
    )


def execute(args: argparse.Namespace) -> None:
    """Read, compare, write; push where asked to."""
    import os

    from internvl_lab.scaling import push, read_runs, write_runs
    from internvl_lab.tracking import WandbLog

    runs = read_runs(args.sources, args.group)
    paths = write_runs(runs, args.out, title=args.title, baseline=args.baseline)
    if args.push:
        *entity, project = args.push.split("/")
        mode = "offline" if os.environ.get("WANDB_MODE") == "offline" else "online"
        log = WandbLog(
            args.out, mode=mode, project=project, entity="/".join(entity) or None, name=args.title, job_type="compare"
        )
        push(runs, paths, log, args.baseline)
