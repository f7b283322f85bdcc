"""Gather the runs to compare or to fit, from whatever holds them, as one kind of row.

::

    study.csv, its folder ─ read_table_runs ───────────────────────┐
    run folder            ─ read_run_folder ─┐                     ├─> Run(label, values, tasks, history)
    offline W&B folder    ─ read_offline_runs ├─> RecordedRun ─ to_run ┘
    wandb:entity/project  ─ read_online_runs ┘

A run's numbers are computed here, by the same code whatever the source, so that the tables agree to the digit.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from internvl_lab.checkpoints.settings import run_model
from internvl_lab.errors import ConfigError
from internvl_lab.models import build_on_meta, count_parameters
from internvl_lab.scaling.curves import run_numbers
from internvl_lab.scaling.table import DONE, FILE_NAME, TASK_PREFIX, RowResult, standard_error
from internvl_lab.tracking import (
    Columns,
    RecordedRun,
    read_offline_runs,
    read_online_runs,
    read_run_folder,
)
from internvl_lab.tracking.csv_log import FILE_NAME as METRICS_FILE
from internvl_lab.tracking.identity import IGNORED

ONLINE = "wandb:"
COMPARED_JOBS = ("", "train")
"""Job types of W&B runs that train; tables and probes live in runs of their own."""
TEXTS = ("label", "overrides", "key", "status", "error", "run_dir", "revision")
"""Columns of a table that hold text, even where it looks like a number (the key `9135e08712`)."""
MAX_LABEL_KEYS = 3
"""Settings that a label names, where that many tell the runs apart."""


@dataclass(frozen=True)
class Run:
    """Hold one row of a comparison."""

    label: str
    """Unique among the runs that were read together."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Column to number: score, blind, val_loss, tokens, params_vision, ...; what is unknown is absent."""
    tasks: Mapping[str, float] = field(default_factory=dict)
    """Task to score."""
    history: Columns = field(default_factory=dict)
    """Logged values, one row a step."""
    status: str = DONE
    error: str = ""
    source: str = ""
    """Folder or address, for people."""
    devices: int | None = None
    """Devices that the run occupied; None = unknown."""
    group: str = ""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Further columns of a study's table: overrides, key, revision."""

    @property
    def hours(self) -> float | None:
        """Return device hours over the whole run; None where time or devices are unknown."""
        seconds = self.values.get("train_s")
        return None if seconds is None or self.devices is None else seconds * self.devices / 3600


def read_runs(sources: Sequence[str], group: str | None = None) -> list[Run]:
    """Read the runs of all sources, in order.

    Args:
        sources: any of: a study's table or folder, a run folder, a folder with offline W&B runs, a `.wandb` file, and
            `wandb:ENTITY/PROJECT[/RUN_ID]`, the only one that uses the network. In a run folder the plain files
            are read; name its `wandb` folder to read that.
        group: keep the runs of this W&B group (by default the experiment); None = all.
    Raises:
        ConfigError: a source that is none of these, or no run left.
        InternVLLabError: a source that cannot be read.
    """
    recorded: list[RecordedRun] = []
    runs: list[Run] = []
    for source in sources:
        found = _read(source)
        recorded += [run for run in found if isinstance(run, RecordedRun)]
        runs += [run for run in found if isinstance(run, Run)]
    runs += [to_run(run, label) for run, label in zip(recorded, make_labels(recorded), strict=True)]
    kept = [run for run in runs if group in (None, run.group)]
    if not kept:
        raise ConfigError(f"no runs in {', '.join(sources)}" + (f" of group {group!r}" if group else ""))
    return _unique(kept)


def to_run(recorded: RecordedRun, label: str) -> Run:
    """Compute a run's numbers from what was recorded."""
    history, summary, tasks = recorded.history, recorded.summary, recorded.tasks
    values: dict[str, Any] = {name: summary.get(f"val/{name}") for name in ("score", "blind", "n", "looping")}
    values |= {"train_s": summary.get("train_s"), "seed": summary.get("seed", recorded.config.get("seed"))}
    values |= run_numbers(history)
    if tasks and all("n" in task for task in tasks.values()):
        values["standard_error"] = standard_error(tasks)
    if "model" in recorded.config:
        counts = count_parameters(build_on_meta(run_model(recorded.config)))
        values |= {"params": counts["total"]} | {f"params_{part}": counts[part] for part in ("vision", "language")}
    return Run(
        label,
        {name: float(value) for name, value in values.items() if value is not None},
        {name: float(task["score"]) for name, task in tasks.items()},
        history,
        source=recorded.source,
        devices=num_devices(recorded.config.get("trainer")),
        group=recorded.group,
    )


def read_table_runs(path: Path) -> list[Run]:
    """Read the rows of a study's table, or of any CSV file with a column `label`.

    A row whose run folder is still there gets its history and devices too; others count one device, unless a column
    `devices` says how many.

    Raises:
        ConfigError: no such file, or no column `label`.
    """
    if not path.is_file():
        raise ConfigError(f"{path} does not exist")
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        if "label" not in (reader.fieldnames or ()):
            raise ConfigError(f"{path} is no study's table: column 'label' is missing")
        return [_row_run(line) for line in reader]


def result_runs(results: Sequence[RowResult]) -> list[Run]:
    """Turn the results of a study into runs, as if they were read from its table."""
    lines = [{**asdict(r), **{TASK_PREFIX + name: score for name, score in r.tasks.items()}} for r in results]
    return [_row_run({name: value for name, value in line.items() if name != "tasks"}) for line in lines]


def make_labels(runs: Sequence[RecordedRun]) -> list[str]:
    """Label runs by the settings in which they differ (`internvit_6b, seed=1`), else by their names.

    Settings that only some of the runs know (older code wrote them) do not count.
    """
    settings = [_flatten(run.config) for run in runs]
    shared = [key for key in (settings[0] if settings else {}) if all(key in flat for flat in settings)]
    keys = [key for key in shared if len({repr(flat[key]) for flat in settings}) > 1]
    names = [key for key in keys if key.endswith(".name")]
    entailed = tuple(name.removesuffix("name") for name in names)  # a model of another name has other sizes too
    entailed += tuple(name.removesuffix(".name").replace("model.", "init_from.") for name in names)
    chosen = names + [key for key in keys if key not in names and not key.startswith(entailed)]
    if len(chosen) > MAX_LABEL_KEYS:
        chosen = [key for key in chosen if key in names or key == "seed"]
    if not chosen or not _tells_apart(settings, chosen):
        return [run.name for run in runs]
    return [", ".join(_show(key, flat[key]) for key in chosen) for flat in settings]


def num_devices(trainer: Mapping[str, Any] | None) -> int | None:
    """Return how many devices a run's trainer settings ask for; None where that depends on the machine."""
    devices = (trainer or {}).get("devices")
    number = len(devices) if isinstance(devices, (list, tuple)) else devices
    if not isinstance(number, int):
        return None
    return number * int((trainer or {}).get("num_nodes", 1))


def _read(source: str) -> Sequence[RecordedRun | Run]:
    """Read one source."""
    if source.startswith(ONLINE):
        return read_online_runs(source.removeprefix(ONLINE), COMPARED_JOBS)
    path = Path(source)
    if path.suffix == ".csv":
        return read_table_runs(path)
    if (path / FILE_NAME).is_file():
        return read_table_runs(path / FILE_NAME)
    if (path / METRICS_FILE).is_file():
        return [read_run_folder(path)]
    try:
        return [run for run in read_offline_runs(path) if run.job_type in COMPARED_JOBS]
    except FileNotFoundError as error:
        raise ConfigError(
            f"{source} is no run: expected {FILE_NAME}, a folder with {METRICS_FILE}, {FILE_NAME} or offline W&B runs, "
            f"or {ONLINE}ENTITY/PROJECT"
        ) from error


def _row_run(line: Mapping[str, Any]) -> Run:
    """Turn one line of a table into a run."""
    cells = {name: cell for name, cell in line.items() if name not in (*TEXTS, "devices")}
    numbers = {name: number for name, cell in cells.items() if (number := _number(cell)) is not None}
    scores = {name.removeprefix(TASK_PREFIX): n for name, n in numbers.items() if name.startswith(TASK_PREFIX)}
    folder = line.get("run_dir") or ""
    known = folder and (Path(folder) / METRICS_FILE).is_file()
    run = to_run(read_run_folder(Path(folder)), line["label"]) if known else Run(line["label"], devices=1)
    devices = _number(line.get("devices", run.devices))
    return replace(
        run,
        values={**run.values, **{name: n for name, n in numbers.items() if not name.startswith(TASK_PREFIX)}},
        tasks=scores or run.tasks,
        status=line.get("status") or DONE,
        error=line.get("error") or "",
        source=folder,
        devices=None if devices is None else int(devices),
        texts={name: str(line[name]) for name in ("overrides", "key", "revision") if line.get(name)},
    )


def _number(cell: Any) -> float | None:
    """Read a cell as a number; None where it is empty or text."""
    try:
        return None if cell in (None, "") else float(cell)
    except ValueError:
        return None


def _flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """List the settings that determine a result by their dotted keys; 10000.0 and 10000 are the same."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        if name in IGNORED:
            continue
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{name}.")
        else:
            flat[name] = int(value) if isinstance(value, float) and value.is_integer() else value
    return flat


def _tells_apart(settings: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> bool:
    """Say whether no two runs agree in all of these keys."""
    return len({repr([flat[key] for key in keys]) for flat in settings}) == len(settings)


def _show(key: str, value: Any) -> str:
    """Write a setting for a label: names alone, other values with the end of their key."""
    return str(value) if key.endswith(".name") else f"{key.rsplit('.', 1)[-1]}={value}"


def _unique(runs: Sequence[Run]) -> list[Run]:
    """Number the labels that occur more than once."""
    seen: dict[str, int] = {}
    unique = []
    for run in runs:
        seen[run.label] = seen.get(run.label, 0) + 1
        unique.append(run if seen[run.label] == 1 else replace(run, label=f"{run.label} ({seen[run.label]})"))
    return unique
