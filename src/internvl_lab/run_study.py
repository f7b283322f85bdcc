"""Hand an experiment with a sweep over to the study: each row is one run in a process group of its own.

::

    sweep.parts ─> runs that make weights, one a choice of a part ─┐ init_from.<part>=FOLDER
    sweep.axes ─> rows ────────────────────────────────────────────┴─> runs ─> study.csv, comparison

    outputs/<experiment>/study-<hash>/         study.csv report.md metrics.json {"rows": [...]} comparison.png logs/
                                     parts/    study.csv logs/
                        /<config hash>/        one run folder a row, wherever its own command line would put it
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from internvl_lab.config import RunConfig
from internvl_lab.config.compose import CONFIG_DIR, compose_raw, plain, typed_config
from internvl_lab.errors import InternVLLabError
from internvl_lab.models import build_on_meta, count_parameters
from internvl_lab.prepare import run_hash
from internvl_lab.run_folder import RunFolder
from internvl_lab.scaling import (
    Row,
    RowResult,
    all_done,
    expand,
    push,
    refuse_equal,
    result_runs,
    run_study,
    with_budgets,
    write_comparison,
)
from internvl_lab.tracking import build_wandb, config_hash, git_revision

log = logging.getLogger(__name__)

TRAIN_SCRIPT = CONFIG_DIR.parent / "train.py"
NO_SWEEP = "sweep=none"
RUN_KEYS = ("paths", "logger", "trainer", "callbacks", "debug", "hydra")
"""Overrides that say where and how a study runs, and so hold for the runs that make its parts, too."""


def study_rows(config: RunConfig, overrides: Sequence[str]) -> list[Row]:
    """List the rows of a configuration's sweep, budgets included; runs are not named yet.

    Args:
        config: with `sweep.axes`.
        overrides: those of the command line.
    Raises:
        ConfigError: no rows result, or one of them does not compose.
    """
    return with_budgets(expand(config.sweep), config.sweep, lambda row: row_config(row, overrides))


def row_config(row: Row, overrides: Sequence[str]) -> RunConfig:
    """Compose the configuration of a row of the study that this command line asks for."""
    return typed_config(_row_raw(row, row_overrides(overrides)))


def _row_raw(row: Row, base: Sequence[str]) -> DictConfig:
    """Compose a row's run without typing, as its own command line would."""
    return compose_raw([*base, NO_SWEEP, *row.overrides])


def study_hash(config: RunConfig, settings: Mapping[str, Any]) -> str:
    """Name a study: hash what decides its rows, so that two sweeps over one experiment keep a table each."""
    sweep = {name: value for name, value in settings["sweep"].items() if name != "baseline"}
    return config_hash({"run": run_hash(config, settings), "rows": sweep})


def row_overrides(overrides: Sequence[str]) -> list[str]:
    """Return what every row takes over from the command line: all but the choice of the sweep and its settings."""
    return [override for override in overrides if not override.lstrip("+~").startswith(("sweep=", "sweep."))]


def run_sweep(config: RunConfig, overrides: Sequence[str], name: str, jobs: int = 1) -> float | None:
    """Run every row that is not done yet, compare all of them, and return the best score.

    Args:
        config: with `sweep.axes`.
        overrides: those of the command line; every row gets them too.
        name: from `study_hash`; names the study's folder.
        jobs: rows that run side by side.
    Raises:
        ConfigError: two rows are the same run.
        InternVLLabError: a row failed twice; the others' results stand in `study.csv`.
    """
    base = row_overrides(overrides)
    experiment = Path(config.paths.output_dir) / config.experiment
    folder = RunFolder(experiment / f"study-{name}")
    folder.open(config.fresh)
    rows = study_rows(config, overrides)
    if config.sweep.parts:
        rows = _with_parts(rows, config.sweep.parts, base, folder.path / "parts", jobs)
    rows = [_with_run(row, base) for row in rows]
    if config.max_steps_per_stage is None or not (config.sweep.budget_shares or config.sweep.budget_flops):
        refuse_equal(rows)  # of two steps all shares are alike
    results = _run_rows(rows, base, folder.path, lambda row: _run_folder(row, base), jobs)
    paths = write_comparison(results, folder.path, title=config.experiment, baseline=config.sweep.baseline)
    folder.link_latest()
    _log_to_wandb(config, folder.path, results, paths)
    _refuse_failures(results, folder.path)
    scores = [result.score for result in results if result.score is not None]
    return max(scores) if scores else None


def _run_rows(
    rows: Sequence[Row], base: Sequence[str], study_dir: Path, run_dir: Callable[[Row], Path], jobs: int
) -> list[RowResult]:
    """Run rows as this project's own command line."""
    return run_study(
        rows,
        lambda row: [sys.executable, str(TRAIN_SCRIPT), *base, NO_SWEEP, *row.overrides],
        study_dir,
        run_dir=run_dir,
        revision=git_revision() or "",
        jobs=jobs,
        slots=gpu_slots(jobs),
    )


def _refuse_failures(results: Sequence[RowResult], study_dir: Path) -> None:
    """Raise if a row failed."""
    if not all_done(results):
        failed = ", ".join(f"{result.label} ({result.error})" for result in results if result.error)
        raise InternVLLabError(f"rows failed: {failed}; logs in {study_dir / 'logs'}, the same command retries them")


def _with_parts(
    rows: Sequence[Row], parts: Mapping[str, Sequence[str]], base: Sequence[str], study_dir: Path, jobs: int
) -> list[Row]:
    """Make the parts that the rows start from, those that are not there yet, and name them in the rows.

    Args:
        parts: part to the overrides of the run that makes it; this run starts from parts named before it.
        base: of the study; the parts' runs get those that say where and how to run.
        study_dir: gets the table of these runs.
        jobs: runs side by side.
    Raises:
        InternVLLabError: a part's run failed twice.
    """
    here = [override for override in base if override.lstrip("+~").startswith(RUN_KEYS)]
    named = [*chain.from_iterable(row.overrides for row in rows), *chain.from_iterable(parts.values())]
    runs: list[Row] = []
    made: dict[str, Path] = {}

    def place(run: Row) -> Path:
        """Return where a part's run lies, wherever its rows are started."""
        return _run_folder(run, here).absolute()

    for part, overrides in parts.items():
        choices = dict.fromkeys(choice for choice in named if choice.startswith(f"model/{part}="))
        new = [_with_run(_start_from(_part_row(choice, overrides), made), here) for choice in choices]
        runs += new
        _refuse_failures(_run_rows(runs, here, study_dir, place, jobs), study_dir)
        made |= {choice: place(run) for choice, run in zip(choices, new, strict=True)}
    return [_start_from(row, made) for row in rows]


def _part_of(choice: str) -> str:
    """Return the part that `model/<part>=NAME` chooses."""
    return choice.removeprefix("model/").split("=")[0]


def _part_row(choice: str, overrides: Sequence[str]) -> Row:
    """Describe the run that makes what `model/<part>=<scale>/NAME` chooses; it is called `<part> NAME`."""
    name = choice.partition("=")[2].rpartition("/")[2]
    return Row(f"{_part_of(choice)} {name}", (*overrides, choice))


def _start_from(row: Row, made: Mapping[str, Path]) -> Row:
    """Let a row start from those of its choices of a part that were made."""
    starts = (f"init_from.{_part_of(choice)}={made[choice]}" for choice in row.overrides if choice in made)
    return replace(row, overrides=(*row.overrides, *starts))


def _run_folder(row: Row, base: Sequence[str]) -> Path:
    """Return where a row's run lies: each belongs to an experiment of its own."""
    config = typed_config(_row_raw(row, base))
    return Path(config.paths.output_dir) / config.experiment / row.key


def gpu_slots(jobs: int) -> list[dict[str, str]]:
    """Deal the machine's GPUs out to rows that run side by side; nothing to deal with fewer GPUs than jobs."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = [str(i) for i in range(torch.cuda.device_count())] if named is None else named.split(",")
    each = len(devices) // jobs
    if jobs == 1 or each == 0 or devices == [""]:
        return [{} for _ in range(jobs)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(devices[i * each : (i + 1) * each])} for i in range(jobs)]


def _with_run(row: Row, base: Sequence[str]) -> Row:
    """Add to a row which run it is (its configuration's hash) and how large its model is."""
    raw = _row_raw(row, base)
    config = typed_config(raw)
    counts = count_parameters(build_on_meta(config.model))
    return replace(
        row,
        key=run_hash(config, plain(raw)),
        params=counts["total"],
        params_vision=counts["vision"],
        params_language=counts["language"],
    )


def _log_to_wandb(config: RunConfig, study_dir: Path, results: Sequence[RowResult], paths: dict[str, Path]) -> None:
    """Show the comparison as one W&B run beside those of the rows."""
    wandb = build_wandb(study_dir, config.logger.get("wandb"), {"experiment": config.experiment})
    if wandb is not None:
        push(result_runs(results), paths, wandb, config.sweep.baseline)
