"""Save and load weights in transformers' own layout, so that plain transformers loads them too.

    folder/  model.safetensors   native keys (see `tensors`)
             config.json         transformers' fields, and our ModelConfig under "internvl_lab"
             provenance.json     where the weights come from, and the sha256 of model.safetensors
             tokenizer.json, processor.json    when template and tiling are given (see `processor`)

A folder appears whole or not at all: it is written beside its place and then renamed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from internvl_lab.checkpoints import official
from internvl_lab.checkpoints.base import base_of
from internvl_lab.checkpoints.configs import OUR_KEY, check_switches, from_native_config, our_fields, to_native_config
from internvl_lab.checkpoints.files import new_folder, read_json, write_json
from internvl_lab.checkpoints.processor import save_processor
from internvl_lab.checkpoints.sources import Source, open_source
from internvl_lab.checkpoints.tensors import (
    CONFIG_FILE,
    PROVENANCE_FILE,
    WEIGHTS_FILE,
    check_fit,
    copy_into,
    native_name,
    native_tensors,
    sha256_of,
)
from internvl_lab.config import ModelConfig, TilingConfig
from internvl_lab.constants import PARTS
from internvl_lab.errors import CheckpointError
from internvl_lab.models import InternVL, gather_weights, part_of
from internvl_lab.text import ChatTemplate

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def save_model(
    model: InternVL,
    folder: Path,
    provenance: Mapping[str, Any],
    dtype: str | None = None,
    template: ChatTemplate | None = None,
    tiling: TilingConfig | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> Path:
    """Save all parts, adapters merged; `AutoModelForImageTextToText.from_pretrained(folder)` loads them as well.

    Args:
        model: the model.
        folder: appears whole; replaced if it exists.
        provenance: JSON-able facts: what was trained, from which weights.
        dtype: `float32` or `bfloat16`; None = as the parameters are.
        template, tiling: when both are given, the processor is saved too.
        weights: of any shape, from `gather_weights`, where the model is sharded; None = gathered here.
    Returns:
        The folder.
    Raises:
        CheckpointError: an unknown dtype.
    """
    name = dtype or _name(model.dtype)
    weights = gather_weights(model) if weights is None else weights
    with new_folder(folder) as new:
        _write(new, weights, PARTS, name, to_native_config(model, name), provenance)
        if template is not None and tiling is not None:
            save_processor(new, template, tiling)
    return folder


def save_part(
    model: InternVL, part: str, folder: Path, provenance: Mapping[str, Any], dtype: str | None = None
) -> Path:
    """Save one part (`vision`, `projector` or `language`), under the same keys as in a whole checkpoint.

    Raises:
        CheckpointError: an unknown part or dtype.
    """
    if part not in PARTS:
        raise CheckpointError(f"part {part!r} must be one of {', '.join(PARTS)}")
    name = dtype or _name(model.dtype)
    config = {OUR_KEY: our_fields(model.config, name) | {"part": part, "image_token_id": model.image_token_id}}
    with new_folder(folder) as new:
        _write(new, gather_weights(model), (part,), name, config, provenance)
    return folder


def load_model(folder: Path, attention: str = "auto", dtype: str | None = None) -> InternVL:
    """Load a whole checkpoint, in native or in the authors' format.

    Args:
        folder: the checkpoint.
        attention: backend of the language model.
        dtype: `float32` or `bfloat16`; None = as saved.
    Raises:
        CheckpointError: tensors or settings that do not fit, all listed.
    """
    config, image_token_id = read_config(folder)
    model = InternVL(replace(config, attention=attention, dtype=dtype or config.dtype), image_token_id)
    _load(model, PARTS, open_source(folder, language=config.language), str(folder))
    return model


def load_part(model: InternVL, part: str, source: Path) -> None:
    """Load one part from a whole checkpoint or from a folder that holds only that part.

    Args:
        model: the model; other parts stay as they are.
        part: `vision`, `projector` or `language`.
        source: folder or file, of any kind that `open_source` reads.
    Raises:
        CheckpointError: tensors that are missing, unexpected or mis-shaped (all listed), or weights of a network with
            other switches (heads, norms, rotary base).
    """
    origin = f"{part} from {source}"
    opened = open_source(source, language=model.config.language)
    if part in opened.settings.parts:
        check_switches(part, model.config, opened.settings.model_config(), origin)
    _load(model, (part,), opened, origin)


def load_official(folder: Path, attention: str = "auto", dtype: str = "float32") -> InternVL:
    """Load a checkpoint in the authors' format; `load_model` with the authors' dtype left aside.

    Raises:
        CheckpointError: see `load_model`.
    """
    return load_model(folder, attention, dtype)


def read_config(folder: Path) -> tuple[ModelConfig, int]:
    """Read model settings and the image token's id from a checkpoint in native or the authors' format.

    Raises:
        CheckpointError: config.json is missing or describes another kind of model.
    """
    content = read_json(base_of(folder) / CONFIG_FILE)
    if official.is_official(content):
        return official.from_official_config(content)
    return from_native_config(content)


def _load(model: InternVL, parts: Collection[str], source: Source, origin: str) -> None:
    """Check names and shapes of the given parts, then copy them."""
    check_fit(source.shapes(parts).items(), native_tensors(model, parts), origin)
    copy_into(model, source.tensors(parts), parts, origin)


def _name(dtype: torch.dtype) -> str:
    """Return `float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")


def _write(
    folder: Path,
    weights: Mapping[str, Tensor],
    parts: Collection[str],
    dtype: str,
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> None:
    """Write weights, settings and provenance into an existing folder."""
    if dtype not in _DTYPES:
        raise CheckpointError(f"dtype {dtype!r} must be one of {', '.join(_DTYPES)}")
    tensors = {
        native_name(name): tensor.to(_DTYPES[dtype]).contiguous()
        for name, tensor in weights.items()
        if part_of(name) in parts
    }
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    write_json(folder / CONFIG_FILE, config)
    facts = dict(provenance) | {"parts": list(parts), "dtype": dtype, "weights_sha256": sha256_of(folder)}
    write_json(folder / PROVENANCE_FILE, facts)
