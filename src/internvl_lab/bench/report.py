"""The result of a measurement: a table to read and a JSON file to compare."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from internvl_lab.bench.timing import CpuClock
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
    clock: str = CpuClock.name
    """What `time_s` and the rates are measured with."""


def write_json(report: Report | Mapping[str, Any], path: Path) -> None:
    """Write a report, creating the folder; a `Report` has the keys device, ours, peers, ratios, setting, clock."""
    content = asdict(report) if isinstance(report, Report) else report
    text = json.dumps(content, indent=2)
    text = re.sub(r"\[[\s\d,]+\]", lambda numbers: re.sub(r"\s+", " ", numbers[0]), text)  # a pack on one line
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def summary_table(report: Report) -> Table:
    """Lay out the figures of all variants, and what was measured."""
    title = f"{report.device}; {report.clock}"
    table = Table("", title=title, caption=", ".join(f"{k} {v}" for k, v in report.setting.items()))
    variants = {"ours": report.ours, **report.peers}
    for name in variants:
        table.add_column(name, justify="right")
    for figure in report.ours:
        table.add_row(figure.replace("_", " "), *(_cell(values.get(figure)) for values in variants.values()))
    return table


def ratio_line(report: Report) -> str:
    """Write the ratios in one line."""
    return "ours / peer: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in report.ratios.items())


def check_same_loss(losses: Mapping[str, float], tolerance: float) -> None:
    """Refuse to compare variants that do not compute the same thing.

    Args:
        losses: variant to mean loss over the same supervised tokens.
        tolerance: largest allowed difference between any two.
    Raises:
        InternVLLabError: they differ, or are no numbers.
    """
    values = losses.values()
    if not all(map(math.isfinite, values)) or max(values) - min(values) > tolerance:
        listed = ", ".join(f"{name} {loss:.6f}" for name, loss in losses.items())
        raise InternVLLabError(f"the variants' losses differ by more than {tolerance:g}, nothing to compare: {listed}")


def _cell(value: Any) -> str:
    """Format a figure; repeats as their median and half their range in per cent of it."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        half_range = (value["max"] - value["min"]) / 2 / value["median"]
        return f"{_number(value['median'])} ±{half_range:.0%}"
    return _number(value)


def _number(value: float) -> str:
    """Format four significant digits, without an exponent where that is short."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
