"""Read offline W&B runs from their `.wandb` files, without network or account.

wandb 0.31 has no Python reader of these files any more; `wandb leet inspect --json` is its own, and prints one record a
line: the run (names, configuration), its history and the changes of its summary.
"""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from internvl_lab.errors import InternVLLabError
from internvl_lab.tracking.read_back import Columns, to_columns
from internvl_lab.tracking.recorded import RecordedRun

log = logging.getLogger(__name__)

STEP = "trainer/global_step"
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""JSON has no such numbers, so wandb writes these words."""
_PREFIX = "run-"
Record = tuple[str, dict[str, Any]]
"""Type and content."""


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
        InternVLLabError: several runs there, or the `wandb` command cannot read one.
    """
    runs = read_offline_runs(folder)
    if len(runs) > 1:
        raise InternVLLabError(f"{folder} holds {len(runs)} offline W&B runs: name the folder of one")
    return runs[0].history


def read_offline_runs(folder: Path) -> list[RecordedRun]:
    """Read all offline W&B runs below a folder, by their starts; damaged files are left out with a warning.

    Args:
        folder: as in `read_offline_wandb`, or a folder with many of them.

    Raises:
        FileNotFoundError: no offline run there.
        InternVLLabError: none of them can be read.
    """
    path = Path(folder)
    # offline-run-<second>-<random id>: of two starts within a second the path decides, not the id
    found = [] if path.is_file() else path.glob(f"**/{_PREFIX}*.wandb")
    files = [path] if path.is_file() else sorted(found, key=lambda f: (f.parent.name.rpartition("-")[0], str(f)))
    if not files:
        raise FileNotFoundError(f"{path} holds no offline W&B run ({_PREFIX}*.wandb)")
    starts: dict[str, list[tuple[Path, list[Record]]]] = {}
    damaged: list[str] = []
    for file in files:
        try:
            records = list(read_records(file))
        except InternVLLabError as error:
            damaged.append(str(error))
        else:
            starts.setdefault(file.stem.removeprefix(_PREFIX), []).append((file, records))
    if not starts:
        raise InternVLLabError(damaged[0])
    for line in damaged:
        log.warning("left out: %s", line)
    return [_join(of_one_run) for of_one_run in starts.values()]


def _join(starts: list[tuple[Path, list[Record]]]) -> RecordedRun:
    """Join the starts of one run, each a file and what it holds."""
    run: dict[str, Any] = {}
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for number, (_, records) in enumerate(starts):
        for kind, content in records:
            if kind == "run":
                run |= content
                config |= content.get("config", {}).get("update", {})
            elif kind == "config":
                config |= content.get("update", {})
            elif kind == "summary":
                summary |= content.get("update", {})
            elif kind == "history":
                rows.append({"start": number, **content["item"]})
    return RecordedRun(
        name=run.get("display_name") or run.get("run_id", ""),
        source=str(starts[-1][0].parent),
        history=join_history(rows),
        config={key: value for key, value in config.items() if key != "_wandb"},
        summary=numbers(summary),
        group=run.get("run_group", ""),
        job_type=run.get("job_type", ""),
        tags=tuple(run.get("tags", ())),
    )


def join_history(rows: list[dict[str, Any]]) -> Columns:
    """Turn W&B's history into columns, without its own columns and media, and with each step once.

    Args:
        rows: as logged, in order; `start` tells apart the starts of a resumed run where steps are not numbered.
    """
    kept: dict[Any, dict[str, Any]] = {}
    for row in rows:
        values = {name: parse(value) for name, value in _without_media(row).items() if value is not None}
        step, logged = values.get(STEP), sorted(values.keys() - {STEP})
        if logged:
            key = (step, *logged) if step is not None else (row.get("start"), row.get("_step"))
            kept[key] = values
    return to_columns(list(kept.values()), sorted({name for row in kept.values() for name in row}))


def numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    """Keep the numbers of a summary, without W&B's own."""
    parsed = {name: parse(value) for name, value in summary.items() if not name.startswith("_")}
    return {name: v for name, v in parsed.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}


def parse(value: Any) -> Any:
    """Turn wandb's words for numbers that are not finite into numbers."""
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value


def read_records(file: Path) -> Iterator[Record]:
    """Yield the type and content of each record of one `.wandb` file, in the order in which they were written.

    Raises:
        InternVLLabError: the `wandb` command cannot read it, or finds no run in it.
    """
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise InternVLLabError(f"wandb cannot read {file}: {done.stderr.strip() or done.stdout.strip()}")
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not any(record["type"] == "run" for record in found):
        raise InternVLLabError(f"wandb cannot read {file}: the record that names the run is missing or damaged")
    for record in found:
        yield record["type"], record.get(record["type"], {})


def _without_media(row: Mapping[str, Any]) -> dict[str, Any]:
    """Drop W&B's own columns and the parts of pictures and tables, which are logged as `<key>._type` and so on."""
    media = tuple(name.removesuffix("_type") for name in row if name.endswith("._type"))
    return {name: value for name, value in row.items() if not name.startswith(("_", *media)) and name != "start"}
