"""The public API: what a notebook needs to compose a configuration and to load a trained model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from internvl_lab.atomic import write_atomic
from internvl_lab.checkpoints import (
    copy_adapter,
    load_model,
    load_processor,
    resolve_source,
    save_model,
    save_part,
)
from internvl_lab.checkpoints.base import ADAPTER_FILE
from internvl_lab.checkpoints.files import read_json, write_json
from internvl_lab.checkpoints.tensors import PROVENANCE_FILE, WEIGHTS_FILE, sha256_of
from internvl_lab.config import RunConfig
from internvl_lab.config.compose import compose as compose_config
from internvl_lab.constants import PARTS
from internvl_lab.errors import CheckpointError
from internvl_lab.inference import Processor
from internvl_lab.models import InternVL

ADAPTER = "adapter"
"""Folder beside the weights of a LoRA stage, and the name of that asset's only part."""


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
    return resolve_source(str(source))


def export_asset(source: str | Path, parts: Sequence[str], out: Path) -> Path:
    """Write parts of a trained run as package data: bf16 safetensors with the run's provenance.

    Args:
        source: run or weights folder.
        parts: all three parts make a whole checkpoint with its processor, a single one an asset of its own;
            `adapter` is what a LoRA stage has learned, to be added to the weights that it started from.
        out: asset folder.
    Returns:
        The weights file.
    Raises:
        CheckpointError: neither one part nor all; no adapter, or one of weights from several sources.
    """
    folder = weights_folder(source)
    if tuple(parts) == (ADAPTER,):
        return _export_adapter(folder, out)
    model = load_model(folder)
    provenance = {k: v for k, v in read_json(folder / PROVENANCE_FILE).items() if k != "weights_sha256"}
    if set(parts) == set(PARTS):
        save_model(model, out, provenance, "bfloat16", *load_processor(folder))
        for file in out.glob("tokenizer*.json"):  # without the line breaks less than half as large
            write_atomic(file, json.dumps(read_json(file), ensure_ascii=False, separators=(",", ":")) + "\n")
    elif len(parts) == 1:
        save_part(model, parts[0], out, provenance, "bfloat16")
    else:
        raise CheckpointError(f"parts={','.join(parts)}: an asset is one part, or all of {', '.join(PARTS)}")
    return out / WEIGHTS_FILE


def _export_adapter(weights: Path, out: Path) -> Path:
    """Write the adapter beside a LoRA stage's weights, with the source that the stage started from as its base."""
    provenance = read_json(weights / PROVENANCE_FILE)
    bases = {origin["source"] for origin in provenance.get("init", {}).values()}
    if len(bases) != 1:
        raise CheckpointError(f"{weights}: an adapter belongs to one base, not to {', '.join(sorted(bases)) or 'none'}")
    copy_adapter(weights.parent / ADAPTER, out, bases.pop())
    facts = {"parts": [ADAPTER], "dtype": "bfloat16", "weights_sha256": sha256_of(out)}
    write_json(out / PROVENANCE_FILE, provenance | facts)
    return out / ADAPTER_FILE
