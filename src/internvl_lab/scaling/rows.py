"""Expand a sweep into the rows of a study.

::

    SweepConfig.axes {override key: values} ─ product ─> Row(label, overrides) ─ scaling.budgets ─> Row ... one run each
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from internvl_lab.config import SweepConfig
from internvl_lab.errors import ConfigError

_PLAIN = re.compile(r"[A-Za-z0-9_./:@$+\-]+")
"""Texts that Hydra's grammar takes without quotes."""


@dataclass(frozen=True)
class Row:
    """Name one run of a study."""

    label: str
    """Short name for tables and plots, unique in the study."""
    overrides: tuple[str, ...]
    """What sets this row apart, as Hydra overrides."""
    key: str = ""
    """Hash of the run's configuration: with another one, a finished row counts as another run."""
    params: int | None = None
    """Parameters of the model, where the caller has counted them; likewise of two of its parts."""
    params_vision: int | None = None
    params_language: int | None = None

    @property
    def slug(self) -> str:
        """Return the label as a file name."""
        return re.sub(r"[^A-Za-z0-9._-]+", "_", self.label).strip("_.") or "row"


def expand(sweep: SweepConfig) -> list[Row]:
    """List the rows of a sweep: the product of its axes, the last axis running fastest.

    A row is labelled by the ends of its values' names (`internvit_6b`), numbers with their key (`max_tiles=6`), cases
    by their labels; by whole overrides where that is ambiguous.

    Raises:
        ConfigError: no axes, an axis without values, equal rows, or a baseline that is no row.
    """
    if not sweep.axes:
        raise ConfigError(f"sweep {sweep.name or 'none'} has no axes: there is no study to run")
    rows = [Row(", ".join(c.label for c in chosen), _joined(chosen)) for chosen in _products(sweep)]
    if len({row.slug for row in rows}) < len(rows):
        rows = [Row(" ".join(row.overrides), row.overrides) for row in rows]
    refuse_equal(rows)
    if not (sweep.budget_shares or sweep.budget_flops):  # else `with_budgets` gives the rows their last labels
        find_baseline(rows, sweep.baseline)
    return rows


def refuse_equal(rows: Sequence[Row]) -> None:
    """Refuse rows that share a label, or that are one run: its folder would give them all the first one's result.

    Raises:
        ConfigError: names the two rows.
    """
    seen: dict[object, str] = {}
    for row in rows:
        for mark in {row.slug, row.overrides, row.key or row.overrides}:
            if mark in seen:
                raise ConfigError(f"sweep: the rows {seen[mark]!r} and {row.label!r} are the same run; let them differ")
            seen[mark] = row.label


def _products(sweep: SweepConfig) -> Iterator[tuple[Row, ...]]:
    """Yield each combination of the axes' values, every value as a row of its own."""
    return product(*(_values(axis, values) for axis, values in sweep.axes.items()))


def _joined(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(override for row in rows for override in row.overrides)


def _values(axis: str, values: Any) -> list[Row]:
    """List the values of an axis, each as a row that sets nothing else.

    Raises:
        ConfigError: neither a list of values nor a mapping of cases, or nothing in it.
    """
    if not values or not isinstance(values, (tuple, list, Mapping)):
        raise ConfigError(f"sweep.axes.{axis} needs a list of values")
    if not isinstance(values, Mapping):
        return [Row(_label(axis, value), _overrides([(axis, value)])) for value in values]
    for label, case in values.items():
        if not isinstance(case, Mapping):
            raise ConfigError(f"sweep.axes.{axis}: case {label!r} needs a group of overrides, such as {{seed: 1}}")
    return [Row(str(label), _overrides(list(case.items()))) for label, case in values.items()]


def find_baseline(rows: Sequence[Row], label: str | None) -> Row:
    """Return the row the others are compared with: the one of that label, or the first.

    Raises:
        ConfigError: no such row.
    """
    for row in rows:
        if label in (None, row.label):
            return row
    raise ConfigError(f"sweep.baseline={label!r} is no row; rows are {', '.join(row.label for row in rows)}")


def format_value(value: Any) -> str:
    """Write a value in Hydra's override grammar; texts are quoted only where they must be."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{format_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(format_value(item) for item in value) + "]"
    if isinstance(value, str) and not _PLAIN.fullmatch(value):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)


def _overrides(pairs: Sequence[tuple[str, Any]]) -> tuple[str, ...]:
    """Write axis and value of each pair as an override."""
    return tuple(f"{axis}={format_value(value)}" for axis, value in pairs)


def _label(axis: str, value: Any) -> str:
    """Name one choice shortly: the end of a text's path, or key=value."""
    if isinstance(value, str):
        return value.rsplit("/", 1)[-1]
    return f"{re.split('[./]', axis)[-1]}={format_value(value)}"
