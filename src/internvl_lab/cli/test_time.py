"""`test-time`: draw many answers to each question, vote or re-rank, and plot what it buys (`conf/test_time.yaml`)."""

from __future__ import annotations

import argparse
import sys


def configure(parser: argparse.ArgumentParser) -> None:
    """Take Hydra overrides."""
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="checkpoint=DIR out=DIR tasks=[a,b] samples=8 ..."
    )


def execute(args: argparse.Namespace) -> None:
    """Answer, judge, summarise; write samples, curves and report."""
    from rich.console import Console

    from internvl_lab.config.compose import compose_test_time
    from internvl_lab.evaluation.test_time_session import scale_test_time
    from internvl_lab.inference.test_time.report import result_table

    results, paths = scale_test_time(compose_test_time(args.overrides), sys.stderr.isatty())
    console = Console()
    console.print(result_table(results[0]))
    for name, path in paths.items():
        console.print(f"{name:<8} {path}", soft_wrap=True, markup=False, highlight=False)
