"""`sizes`: count the parameters of the seven published sizes, without their weights."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

PUBLISHED = {"1b": 0.9, "2b": 2.2, "4b": 3.7, "8b": 8.1, "26b": 25.5, "38b": 38.4, "78b": 78.4}
"""Parameters in billions as the report states them. Source: InternVL 2.5, table 2."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write {size: {part: parameters}} there instead")


def execute(args: argparse.Namespace) -> None:
    """Count every size on the `meta` device; show the table or write the file."""
    counts = count_sizes()
    if args.json:
        args.json.write_text(json.dumps(counts, indent=1) + "\n")
        return
    _show(counts)


def count_sizes() -> dict[str, dict[str, int]]:
    """Count the parameters of each size: keys vision, projector, language, total."""
    from internvl_lab.config.compose import compose
    from internvl_lab.models import build_on_meta, count_parameters

    return {size: count_parameters(build_on_meta(compose([f"model=internvl2_5_{size}"]).model)) for size in PUBLISHED}


def _show(counts: dict[str, dict[str, int]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("size", title="parameters of InternVL 2.5", box=box.SIMPLE, pad_edge=False)
    for name in (*next(iter(counts.values())), "report"):
        table.add_column(name, justify="right")
    for size, parts in counts.items():
        table.add_row(size, *(f"{n:,}" for n in parts.values()), f"{PUBLISHED[size]:.1f}B")
    Console().print(table)
