"""The public API: what a notebook needs to compose a configuration and to load a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from internvl_lab.checkpoints import (
    last_stage_weights,
    load_model,
    load_processor,
    resolve_source,
    save_model,
    save_part,
)
from internvl_lab.checkpoints.files import read_json
from internvl_lab.checkpoints.tensors import PROVENANCE_FILE, WEIGHTS_FILE
from internvl_lab.config import RunConfig
from internvl_lab.config.compose import compose as compose_config
from internvl_lab.constants import PARTS
from internvl_lab.errors import CheckpointError
from internvl_lab.inference import Processor
from internvl_lab.models import InternVL


def compose(overrides: Sequence[str] = ()) -> RunConfig:
    """Compose the configuration that `python train.py OVERRIDES` would run.

    Raises:
        ConfigError: an override is wrong; the message names the key.
    """
    return compose_config(overrides)


def load(source: str | Path = "outputs/latest", attention: str = "auto") -> tuple[InternVL, Processor]:
    """Load a trained model and what prepares its prompts.

    Args:
        source: run folder (its last finished stage), weights folder, or `asset:NAME`.
        attention: backend of the language model.
    Returns:
        The model in eval mode, fp32, and its processor.
    Raises:
        MissingWeightsError: nothing there.
        CheckpointError: a run without a finished stage, or tensors that do not fit.
    """
    folder = weights_folder(source)
    model = load_model(folder, attention=attention, dtype="float32").eval()
    template, tiling = load_processor(folder)
    return model, Processor(template, tiling)


def weights_folder(source: str | Path) -> Path:
    """Find the weights folder that `source` names.

    Raises:
        MissingWeightsError: nothing there.
        CheckpointError: a run folder without a finished stage.
    """
    folder = Path(source)
    return last_stage_weights(folder) if (folder / "stages").is_dir() else resolve_source(str(source))


def export_asset(source: str | Path, parts: Sequence[str], out: Path) -> Path:
    """Write parts of a trained run as package data: bf16 safetensors with the run's provenance.

    Args:
        source: run or weights folder.
        parts: all three parts make a whole checkpoint with its processor, a single one an asset of its own.
        out: asset folder.
    Returns:
        The weights file.
    Raises:
        CheckpointError: neither one part nor all.
    """
    folder = weights_folder(source)
    model = load_model(folder)
    provenance = {k: v for k, v in read_json(folder / PROVENANCE_FILE).items() if k != "weights_sha256"}
    if set(parts) == set(PARTS):
        save_model(model, out, provenance, "bfloat16", *load_processor(folder))
    elif len(parts) == 1:
        save_part(model, parts[0], out, provenance, "bfloat16")
    else:
        raise CheckpointError(f"parts={','.join(parts)}: an asset is one part, or all of {', '.join(PARTS)}")
    return out / WEIGHTS_FILE
