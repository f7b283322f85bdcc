"""Read, check and copy tensors, one at a time; nothing is dropped silently.

Native names are transformers' own: `model.vision_tower.*`, `model.multi_modal_projector.*`, `model.language_model.*`
and `lm_head.weight`. In `InternVL` they lack the leading `model.`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from internvl_lab.checkpoints.files import read_json
from internvl_lab.errors import CheckpointError, ConfigError
from internvl_lab.models import InternVL, part_of

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"
PROVENANCE_FILE = "provenance.json"

_MAX_LISTED = 40
"""Names listed per class of fault; the count is always exact."""


def native_name(name: str) -> str:
    """Turn a parameter name of `InternVL` into its checkpoint key."""
    return name if name.startswith("lm_head.") else f"model.{name}"


def native_tensors(model: InternVL, parts: Collection[str]) -> dict[str, Tensor]:
    """Map checkpoint keys to the model's own tensors (any shape, no copies), for the given parts."""
    return {native_name(name): tensor for name, tensor in model.state_dict().items() if part_of(name) in parts}


def has_weights(folder: Path) -> bool:
    """Say whether a folder holds safetensors that could be loaded."""
    return (folder / INDEX_FILE).is_file() or (folder / WEIGHTS_FILE).is_file()


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors files of a folder, following the index of a sharded checkpoint.

    Raises:
        CheckpointError: there are no weights, or a file that the index names is missing.
    """
    names = [WEIGHTS_FILE]
    if (folder / INDEX_FILE).is_file():
        names = sorted(set(read_json(folder / INDEX_FILE).get("weight_map", {}).values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not names:
        raise CheckpointError(f"{folder} holds no complete weights; missing: {', '.join(missing) or 'all shards'}")
    return [folder / name for name in names]


def iter_tensors(folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, tensor of any shape) of a folder's weights, holding one tensor at a time.

    Args:
        folder: a folder with `model.safetensors`, or with shards and their index.
        wanted: says by name which tensors to read.
    Raises:
        CheckpointError: a missing or unreadable file.
    """
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt") as handle:
                for name in filter(wanted, list(handle.keys())):
                    yield name, handle.get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(f"{file} is no readable safetensors file: {error}") from error


def sha256_of(folder: Path) -> str:
    """Hash all weight files of a folder, in order, to 64 hex digits."""
    digest = hashlib.sha256()
    for file in weight_files(folder):
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def belongs_to(name: str, parts: Collection[str]) -> bool:
    """Say whether a native key belongs to one of `parts`, or to no part at all (then it must be reported)."""
    try:
        return part_of(name) in parts
    except ConfigError:
        return True


@torch.no_grad()
def copy_into(model: InternVL, tensors: Iterable[tuple[str, Tensor]], parts: Collection[str], origin: str) -> None:
    """Copy native tensors into the parameters of `parts`, converting their dtype.

    Args:
        model: the model; its other parts stay untouched.
        tensors: (native key, tensor of any shape).
        parts: every tensor of these must be given, and no others.
        origin: where the tensors come from, for messages.
    Raises:
        CheckpointError: unexpected, missing or mis-shaped tensors, all listed. The fitting ones are copied by then.
    """
    targets = native_tensors(model, parts)
    missing, unexpected, misshaped = set(targets), [], []
    for name, tensor in tensors:
        if name not in targets:
            unexpected.append(name)
            continue
        missing.discard(name)
        if tensor.shape != targets[name].shape:
            misshaped.append(f"{name} {tuple(tensor.shape)} instead of {tuple(targets[name].shape)}")
        else:
            targets[name].copy_(tensor)
    faults = {"unexpected": unexpected, "missing": sorted(missing), "mis-shaped": misshaped}
    if any(faults.values()):
        raise CheckpointError(f"{origin} does not fit: " + "; ".join(_listed(k, v) for k, v in faults.items() if v))


def _listed(fault: str, names: list[str]) -> str:
    """Write one class of faults: count, then names."""
    more = f", and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return f"{len(names)} {fault}: {', '.join(names[:_MAX_LISTED])}{more}"
