"""The result of a measurement: a table to read and a JSON file to compare."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from internvl_lab.errors import InternVLLabError


@dataclass(frozen=True)
class Report:
    """Hold ours beside its peers, measured in one run."""

    device: str
    ours: dict[str, Any]
    """Figure to value; a value is a number, None, or {"median", "min", "max"} over the repeats."""
    peers: dict[str, dict[str, Any]]
    """Peer to the same figures."""
    ratios: dict[str, float]
    """Name to ours / peer; see the measurement for what is compared."""
    setting: dict[str, Any]
    """What was measured: sizes, dtype, seed, repeats."""


def write_json(report: Report, path: Path) -> None:
    """Write the report, creating the folder: keys device, ours, peers, ratios, setting."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")


def tables(report: Report) -> list[Table]:
    """Lay out the figures of all variants, and the ratios."""
    figures = Table(title=report.device, caption=", ".join(f"{key} {value}" for key, value in report.setting.items()))
    figures.add_column("variant")
    for figure in report.ours:
        figures.add_column(figure.replace("_", " "), justify="right")
    for name, values in {"ours": report.ours, **report.peers}.items():
        figures.add_row(name, *(_cell(values[figure]) for figure in report.ours))
    ratios = Table("ours / peer", "ratio")
    for name, ratio in report.ratios.items():
        ratios.add_row(name, f"{ratio:.2f}")
    return [figures, ratios]


def check_same_loss(losses: Mapping[str, float], tolerance: float) -> None:
    """Refuse to compare variants that do not compute the same thing.

    Args:
        losses: variant to mean loss over the same supervised tokens.
        tolerance: largest allowed difference between any two.
    Raises:
        InternVLLabError: they differ, or are no numbers.
    """
    if not max(losses.values()) - min(losses.values()) <= tolerance:
        listed = ", ".join(f"{name} {loss:.6f}" for name, loss in losses.items())
        raise InternVLLabError(f"the variants' losses differ by more than {tolerance:g}, nothing to compare: {listed}")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return f"{value['median']:.4g} ({value['min']:.4g}–{value['max']:.4g})"
    return f"{value:.5g}"
