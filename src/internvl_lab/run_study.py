"""Hand an experiment with a sweep over to the study: each row is one run in a process group of its own.

outputs/<experiment>/study-<hash>/   study.csv report.md metrics.json {"rows": [...]} comparison.png logs/
                    /<config hash>/  one run folder a row
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from internvl_lab.config import RunConfig
from internvl_lab.config.compose import CONFIG_DIR, compose_raw, plain, typed_config
from internvl_lab.errors import InternVLLabError
from internvl_lab.models import build_on_meta, count_parameters
from internvl_lab.prepare import run_hash
from internvl_lab.run_folder import RunFolder
from internvl_lab.scaling import Row, RowResult, all_done, expand, run_study, write_comparison
from internvl_lab.tracking import build_wandb, git_revision

log = logging.getLogger(__name__)

TRAIN_SCRIPT = CONFIG_DIR.parent / "train.py"
NO_SWEEP = "sweep=none"


def run_sweep(config: RunConfig, overrides: Sequence[str], study_hash: str) -> float | None:
    """Run every row that is not done yet, compare all of them, and return the best score.

    Args:
        config: with `sweep.axes`.
        overrides: those of the command line; every row gets them too.
        study_hash: hash of the study's own configuration, which names its folder.
    Raises:
        InternVLLabError: a row failed twice; the others' results stand in `study.csv`.
    """
    base = [override for override in overrides if not override.lstrip("+~").startswith("sweep=")]
    experiment = Path(config.paths.output_dir) / config.experiment
    folder = RunFolder(experiment / f"study-{study_hash}")
    folder.open(config.fresh)
    rows = [_with_run(row, base) for row in expand(config.sweep)]
    results = run_study(
        rows,
        lambda row: [sys.executable, str(TRAIN_SCRIPT), *base, NO_SWEEP, *row.overrides],
        folder.path,
        run_dir=lambda row: experiment / row.key,
        revision=git_revision() or "",
    )
    paths = write_comparison(results, folder.path, title=config.experiment, baseline=config.sweep.baseline)
    folder.link_latest()
    _log_to_wandb(config, folder.path, results, paths)
    if not all_done(results):
        failed = ", ".join(f"{result.label} ({result.error})" for result in results if result.error)
        raise InternVLLabError(f"rows failed: {failed}; logs in {folder.path / 'logs'}, the same command retries them")
    scores = [result.score for result in results if result.score is not None]
    return max(scores) if scores else None


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
