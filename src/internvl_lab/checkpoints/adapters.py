"""LoRA adapters in files: added to the weights when these are read, or kept in a folder of their own.

step_*.ckpt of a LoRA stage   X.base_layer.weight, X.lora_A.default.weight, X.lora_B.default.weight  ┐ X.weight with
adapter/                      peft's adapter_config.json and adapter_model.safetensors               ┘ adapters added

An adapter folder fits the native export of the weights that it was trained on:
`PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(BASE), ADAPTER)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from internvl_lab.checkpoints.base import ADAPTER_CONFIG_FILE, ADAPTER_FILE, BASE_KEY
from internvl_lab.checkpoints.files import new_folder, read_json, write_json
from internvl_lab.checkpoints.storage import SafetensorsFile, TensorFile
from internvl_lab.config import LoraConfig
from internvl_lab.config.typed import from_mapping
from internvl_lab.constants import LORA_KEY, STATE_KEY
from internvl_lab.errors import CheckpointError
from internvl_lab.models import BASE_MARK, add_low_rank, is_adapter, peft_config

SHARDED_STATE_FILE = "meta.pt"
"""What a sharded checkpoint keeps beside its tensors (Lightning's ModelParallelStrategy)."""

_PEFT_ROOT = "base_model.model."
_UNSUPPORTED = ("use_dora", "fan_in_fan_out", "modules_to_save", "rank_pattern", "alpha_pattern", "lora_bias")
"""Fields of peft's configuration that change what an adapter means; all must be unset."""


@dataclass(frozen=True)
class StoredTensor:
    """Say where a tensor lies."""

    file: TensorFile
    name: str

    def read(self) -> Tensor:
        """Read it, of any shape."""
        return self.file.read(self.name)


@dataclass(frozen=True)
class LowRank:
    """Hold the adapter of one weight: A (rank, in), B (out, rank)."""

    a: StoredTensor
    b: StoredTensor
    scaling: float

    def add_to(self, weight: Tensor) -> Tensor:
        """Return the (out, in) weight with the adapter added, in its own dtype."""
        return add_low_rank(weight, self.a.read(), self.b.read(), self.scaling)


def without_base_mark(key: str) -> str:
    """Return the key that a wrapped weight has without adapters."""
    return key.replace(BASE_MARK, "")


def pair_up(tensors: Mapping[str, StoredTensor], scaling: float, origin: str) -> dict[str, LowRank]:
    """Put the A and B of each weight together.

    Args:
        tensors: native key of an A or B (`X.lora_A.weight`, with or without peft's adapter name) to its place.
        scaling: what B A is multiplied with.
        origin: for messages.
    Returns:
        Native key of the weight to its adapter.
    Raises:
        CheckpointError: an A without B, or a tensor that is neither.
    """
    sides: dict[str, dict[str, StoredTensor]] = {}
    for key, tensor in tensors.items():
        stem, _, rest = key.partition(".lora_")
        sides.setdefault(f"{stem}.weight", {})[rest.partition(".")[0]] = tensor
    if lone := [key for key, pair in sides.items() if set(pair) != {"A", "B"}]:
        raise CheckpointError(f"{origin}: {len(lone)} weights lack the A or B of their adapter: {', '.join(lone[:10])}")
    return {key: LowRank(pair["A"], pair["B"], scaling) for key, pair in sides.items()}


def checkpoint_lora(path: Path) -> LoraConfig:
    """Read how the adapters in a resumable checkpoint count.

    Raises:
        CheckpointError: nothing says so.
    """
    file = path / SHARDED_STATE_FILE if path.is_dir() else path
    content: Any = {}
    if file.is_file() and file.suffix != ".safetensors":
        content = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    settings = content.get(STATE_KEY, {}).get(LORA_KEY) if isinstance(content, Mapping) else None
    if settings is None:
        raise CheckpointError(
            f"{path} holds adapters, but nothing says how they count (alpha): it is no checkpoint of ours; "
            "merge them with what trained them (the authors' tools/merge_lora.py)"
        )
    return from_mapping(LoraConfig, settings, "stage.lora")


def open_adapter(folder: Path) -> dict[str, LowRank]:
    """Open a folder that peft or we wrote, for the model as a whole.

    Returns:
        Native key of a weight to its adapter.
    Raises:
        CheckpointError: no LoRA adapter, one of a kind that cannot be merged by W + scaling * B A, or broken.
    """
    if not (folder / ADAPTER_CONFIG_FILE).is_file() or not (folder / ADAPTER_FILE).is_file():
        raise CheckpointError(f"{folder} is no adapter: it lacks {ADAPTER_CONFIG_FILE} or {ADAPTER_FILE}")
    content = read_json(folder / ADAPTER_CONFIG_FILE)
    if content.get("peft_type") != "LORA":
        raise CheckpointError(f"{folder} holds an adapter of type {content.get('peft_type')}, only LORA can be merged")
    if used := [name for name in _UNSUPPORTED if content.get(name)]:
        raise CheckpointError(f"{folder}: adapters with {', '.join(used)} cannot be merged here")
    rank = float(content["r"])
    scaling = float(content["lora_alpha"]) / (rank**0.5 if content.get("use_rslora") else rank)
    file = SafetensorsFile(folder / ADAPTER_FILE)
    names = list(file.shapes())
    if other := [name for name in names if not is_adapter(name)]:
        raise CheckpointError(f"{folder} holds more than A and B: {', '.join(other[:10])}")
    tensors = {name.removeprefix(_PEFT_ROOT): StoredTensor(file, name) for name in names}
    return pair_up(tensors, scaling, str(folder))


def save_adapter(adapters: Mapping[str, LowRank], lora: LoraConfig, folder: Path) -> Path:
    """Write adapters as peft reads them.

    Args:
        adapters: native key of a weight to its adapter.
        lora: their settings.
        folder: appears whole; replaced if it exists.
    """
    tensors = {}
    for key, pair in adapters.items():
        stem = _PEFT_ROOT + key.removesuffix(".weight")
        tensors[f"{stem}.lora_A.weight"] = pair.a.read().contiguous()
        tensors[f"{stem}.lora_B.weight"] = pair.b.read().contiguous()
    config = peft_config(lora)
    config.inference_mode = True
    with new_folder(folder) as new:
        save_file(tensors, new / ADAPTER_FILE, metadata={"format": "pt"})
        config.save_pretrained(str(new))
    return folder


def copy_adapter(folder: Path, out: Path, base: str) -> Path:
    """Copy an adapter in bf16, with the name of the weights that it belongs to (see `base`).

    Args:
        folder: an adapter that peft or we wrote.
        out: appears whole; replaced if it exists.
        base: source of weights, for example `asset:quickstart`.
    Raises:
        CheckpointError: no LoRA adapter.
    """
    open_adapter(folder)
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(folder / ADAPTER_FILE).items()}
    with new_folder(out) as new:
        save_file(tensors, new / ADAPTER_FILE, metadata={"format": "pt"})
        write_json(new / ADAPTER_CONFIG_FILE, read_json(folder / ADAPTER_CONFIG_FILE) | {BASE_KEY: base})
    return out
