"""`evaluate`: score a checkpoint on benchmarks or miniworld, with predictions, report and metrics."""

from __future__ import annotations

import argparse
import logging

EXAMPLE = "python -m internvl_lab evaluate checkpoint=asset:quickstart tasks=[miniworld] out=outputs/evaluation"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        f"{EXAMPLE}\n\nkeys: config/evaluate.py; --list shows the tasks and their files\n"
        "a judge, for the sets that need one: judge.url=http://127.0.0.1:8000/v1 judge.model=NAME, and where it wants\n"
        "a key, the environment variable that holds it: judge.api_key_variable=OPENAI_API_KEY"
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help="checkpoint, tasks, out, data, batch_size, ...")
    parser.add_argument("--list", action="store_true", help="show all tasks, their metrics and files, and exit")


def execute(args: argparse.Namespace) -> None:
    """Evaluate, then show the figures and where everything is."""
    if args.list:
        _list()
        return
    from rich.console import Console

    from internvl_lab.api import weights_folder
    from internvl_lab.config.evaluate import parse_words
    from internvl_lab.evaluation.session import evaluate_checkpoint

    cfg = parse_words(args.words)
    paths = evaluate_checkpoint(cfg, weights_folder(cfg.checkpoint), Console(stderr=True).is_terminal)
    for name, path in paths.items():
        logging.getLogger(__name__).info("%s: %s", name, path)


def _list() -> None:
    """Show what can be evaluated."""
    from rich.console import Console
    from rich.table import Table

    from internvl_lab.evaluation.benchmark import load_benchmarks

    table = Table("task", "benchmark", "capability", "metric", "files", title="benchmarks")
    for name, benchmark in load_benchmarks().items():
        table.add_row(name, benchmark.title, benchmark.capability, benchmark.metric, ", ".join(benchmark.files))
    Console().print(table)
