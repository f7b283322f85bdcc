"""Read finished runs back as columns, from metrics.csv or from an offline W&B folder, without network."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from internvl_lab.errors import InternVLLabError
from internvl_lab.tracking.append_only import complete_lines
from internvl_lab.tracking.csv_log import FILE_NAME

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
    return _to_columns(rows, reader.fieldnames or ())


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


def read_offline_wandb(folder: Path) -> Columns:
    """Read the history of an offline W&B run.

    Args:
        folder: a run folder with `wandb/offline-run-*`, that `wandb` folder, one `offline-run-*` folder,
            or a `.wandb` file. The starts of a resumed run are joined in the order of their folders' names.

    Returns:
        Columns as logged; W&B's own (`_step`, `_runtime`, ...), pictures and tables are left out. A step logged
        by two starts (the first was killed after its last checkpoint) counts once, as the later logged it.

    Raises:
        FileNotFoundError: no offline run there.
        InternVLLabError: the `wandb` command cannot read it.
    """
    path = Path(folder)
    files = [path] if path.is_file() else sorted(path.glob("**/run-*.wandb"))
    if not files:
        raise FileNotFoundError(f"{path} holds no offline W&B run (run-*.wandb)")
    rows: dict[Any, dict[str, Any]] = {}
    for number, file in enumerate(files):
        for row in _history(file):
            kept = _without_media(row)
            step = kept.get("trainer/global_step")
            key = (step, *sorted(kept)) if step is not None else (number, row["_step"])
            if kept.keys() - {"trainer/global_step"}:
                rows[key] = kept
    return _to_columns(list(rows.values()), sorted({name for row in rows.values() for name in row}))


def _history(file: Path) -> list[dict[str, Any]]:
    """Return the history rows of one `.wandb` file, in the order in which they were logged."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise InternVLLabError(f"wandb cannot read {file}: {done.stderr.strip() or done.stdout.strip()}")
    records = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    return [record["history"]["item"] for record in records if record["type"] == "history"]


def _without_media(row: Mapping[str, Any]) -> dict[str, Any]:
    """Drop W&B's own columns and the parts of pictures and tables, which are logged as `<key>._type` and so on."""
    media = tuple(name.removesuffix("_type") for name in row if name.endswith("._type"))
    return {name: value for name, value in row.items() if not name.startswith(("_", *media))}


def _to_columns(rows: list[Mapping[str, Any]] | list[dict[str, Any]], names: Iterable[str]) -> Columns:
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
