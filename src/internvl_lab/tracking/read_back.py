"""Read what a run has logged back from its metrics.csv, as columns."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from internvl_lab.tracking.append_only import complete_lines
from internvl_lab.tracking.csv_log import FILE_NAME

CUMULATIVE = ("tokens", "samples", "tiles", "flops")
"""What a run has used so far, over all stages: in every row, and the x axes of comparisons."""

Columns = dict[str, list[Any]]
"""Column name to values, all of one length; None where a row has no value."""


def read_metrics(run_dir: Path) -> Columns:
    """Read `metrics.csv` of a run folder.

    Returns:
        Columns with ints, floats and strings as they were logged, bit for bit; None for an empty cell.

    Raises:
        FileNotFoundError: the folder holds no metrics.csv.
    """
    path = Path(run_dir) / FILE_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: not a run folder, or nothing was logged yet")
    reader = csv.DictReader(complete_lines(path))
    rows = [{key: _parse(value) for key, value in row.items()} for row in reader]
    return to_columns(rows, reader.fieldnames or ())


def last_values(run_dir: Path, keys: Iterable[str], stage: str | None = None) -> dict[str, float]:
    """Return the newest value of each key, 0 where none was logged.

    Args:
        run_dir: run folder; need not hold metrics yet.
        keys: for example the cumulative counters that the next stage goes on from.
        stage: look only at rows of this stage; None = all.
    """
    values = dict.fromkeys(keys, 0.0)
    if not (Path(run_dir) / FILE_NAME).is_file():
        return values
    columns = read_metrics(run_dir)
    for key in values.keys() & columns.keys():
        for row_stage, value in zip(columns["stage"], columns[key], strict=True):
            if value is not None and stage in (None, row_stage):
                values[key] = value
    return values


def to_columns(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> Columns:
    """Turn rows into columns of these names; None where a row has no value."""
    return {name: [row.get(name) for row in rows] for name in names}


def _parse(text: str | None) -> Any:
    if not text:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
