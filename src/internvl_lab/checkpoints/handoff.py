"""Hand weights from a finished stage to the next, so that a finished stage is never repeated.

<run_dir>/stages/<stage>/weights/    a native checkpoint
                         done.json   written last: the stage is finished exactly when it is there
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from internvl_lab.checkpoints.files import read_json, write_json
from internvl_lab.checkpoints.native import save_model
from internvl_lab.checkpoints.tensors import PROVENANCE_FILE, has_weights
from internvl_lab.config import TilingConfig
from internvl_lab.errors import CheckpointError
from internvl_lab.models import InternVL
from internvl_lab.text import ChatTemplate

DONE_FILE = "done.json"


def stage_dir(run_dir: Path, stage: str) -> Path:
    """Return the folder of one stage in a run folder."""
    return run_dir / "stages" / stage


def stage_provenance(stage: str, steps: int, init: Mapping[str, Any], config_hash: str) -> dict[str, Any]:
    """Collect what a stage's weights come from.

    Args:
        stage: name of the stage.
        steps: optimizer steps taken.
        init: part to {"source", "sha256"}, as `initialise` returns it.
        config_hash: hash of the run's resolved configuration.
    """
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {"stage": stage, "steps": steps, "init": dict(init), "config_hash": config_hash, "date": date}


def write_stage(
    run_dir: Path,
    stage: str,
    model: InternVL,
    provenance: Mapping[str, Any],
    dtype: str | None = None,
    template: ChatTemplate | None = None,
    tiling: TilingConfig | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> Path:
    """Save the weights a stage ends with, then mark the stage as done.

    Args:
        run_dir: the run's folder.
        stage: name of the stage.
        model: the trained model.
        provenance: from `stage_provenance`.
        dtype: `float32` or `bfloat16`; None = as the parameters are.
        template, tiling: when both are given, the processor is saved too.
        weights: of any shape, from `gather_weights`, where the model is sharded; None = gathered here.
    Returns:
        The folder with the weights.
    """
    folder = stage_dir(run_dir, stage) / "weights"
    save_model(model, folder, provenance, dtype, template, tiling, weights)
    write_json(folder.parent / DONE_FILE, read_json(folder / PROVENANCE_FILE))
    return folder


def stage_done(run_dir: Path, stage: str) -> bool:
    """Say whether a stage is finished and its weights are still there."""
    folder = stage_dir(run_dir, stage)
    return (folder / DONE_FILE).is_file() and has_weights(folder / "weights")


def stage_weights(run_dir: Path, stage: str) -> Path:
    """Return the folder with the weights of a finished stage.

    Raises:
        CheckpointError: the stage is not finished, or its weights are not the ones it finished with.
    """
    folder = stage_dir(run_dir, stage)
    if not stage_done(run_dir, stage):
        raise CheckpointError(f"stage {stage} in {run_dir} is not finished, it has no weights to hand over")
    done, found = read_json(folder / DONE_FILE), read_json(folder / "weights" / PROVENANCE_FILE)
    if done.get("weights_sha256") != found.get("weights_sha256"):
        raise CheckpointError(f"stage {stage} in {run_dir}: {DONE_FILE} and the weights' {PROVENANCE_FILE} disagree")
    return folder / "weights"


def last_stage_weights(run_dir: Path) -> Path:
    """Return the folder with the weights of the stage that a run finished last.

    Raises:
        CheckpointError: no stage is finished.
    """
    done = sorted((run_dir / "stages").glob(f"*/{DONE_FILE}"), key=lambda path: path.stat().st_mtime)
    if not done:
        raise CheckpointError(f"{run_dir} holds no finished stage yet")
    return stage_weights(run_dir, done[-1].parent.name)
