"""Hand an experiment with a sweep over to the study: each row is one run in a process group of its own.

outputs/<experiment>/study-<hash>/   study.csv report.md metrics.json {"rows": [...]} comparison.png logs/
                    /<config hash>/  one run folder a row
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from internvl_lab.config import RunConfig
from internvl_lab.config.compose import CONFIG_DIR, compose, compose_raw, plain, typed_config
from internvl_lab.errors import InternVLLabError
from internvl_lab.models import build_on_meta, count_parameters
from internvl_lab.prepare import run_hash
from internvl_lab.run_folder import RunFolder
from internvl_lab.scaling import Row, RowResult, all_done, expand, run_study, with_budgets, write_comparison
from internvl_lab.tracking import build_wandb, config_hash, git_revision

log = logging.getLogger(__name__)

TRAIN_SCRIPT = CONFIG_DIR.parent / "train.py"
NO_SWEEP = "sweep=none"


def study_rows(config: RunConfig, overrides: Sequence[str]) -> list[Row]:
    """List the rows of a configuration's sweep, budgets included; runs are not named yet.

    Args:
        config: with `sweep.axes`.
        overrides: those of the command line.
    Raises:
        ConfigError: no rows result, or one of them does not compose.
    """
    base = row_overrides(overrides)
    rows = expand(config.sweep)
    return with_budgets(rows, config.sweep, lambda row: compose([*base, NO_SWEEP, *row.overrides]))


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
        InternVLLabError: a row failed twice; the others' results stand in `study.csv`.
    """
    base = row_overrides(overrides)
    experiment = Path(config.paths.output_dir) / config.experiment
    folder = RunFolder(experiment / f"study-{name}")
    folder.open(config.fresh)
    rows = [_with_run(row, base) for row in study_rows(config, overrides)]
    results = run_study(
        rows,
        lambda row: [sys.executable, str(TRAIN_SCRIPT), *base, NO_SWEEP, *row.overrides],
        folder.path,
        run_dir=lambda row: experiment / row.key,
        revision=git_revision() or "",
        jobs=jobs,
        slots=gpu_slots(jobs),
    )
    paths = write_comparison(results, folder.path, title=config.experiment, baseline=config.sweep.baseline)
    folder.link_latest()
    _log_to_wandb(config, folder.path, results, paths)
    if not all_done(results):
        failed = ", ".join(f"{result.label} ({result.error})" for result in results if result.error)
        raise InternVLLabError(f"rows failed: {failed}; logs in {folder.path / 'logs'}, the same command retries them")
    scores = [result.score for result in results if result.score is not None]
    return max(scores) if scores else None


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
    raw = compose_raw([*base, NO_SWEEP, *row.overrides])
    config = typed_config(raw)
    parameters = count_parameters(build_on_meta(config.model))["total"]
    return replace(row, key=run_hash(config, plain(raw)), params=parameters)


def _log_to_wandb(config: RunConfig, study_dir: Path, results: Sequence[RowResult], paths: dict[str, Path]) -> None:
    """Show the comparison as one W&B run beside those of the rows."""
    wandb = build_wandb(study_dir, config.logger.get("wandb"), {"experiment": config.experiment})
    if wandb is None:
        return
    rows = [[r.label, r.status, r.params, r.score, r.blind, r.final_loss, r.train_s] for r in results]
    wandb.log_rows("study", ["row", "status", "parameters", "score", "blind", "final loss", "train s"], rows)
    if "comparison" in paths:
        wandb.log_images("comparison", [paths["comparison"]])
    wandb.finish()
