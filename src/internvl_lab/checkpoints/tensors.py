"""Read, check and copy tensors, one at a time; nothing is dropped silently.

Native names are transformers' own: `model.vision_tower.*`, `model.multi_modal_projector.*`, `model.language_model.*`
and `lm_head.weight`. In `InternVL` they lack the leading `model.`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from internvl_lab.checkpoints.base import ADAPTER_FILE, base_of
from internvl_lab.checkpoints.files import read_json
from internvl_lab.errors import CheckpointError
from internvl_lab.models import BASE_MARK, InternVL, is_adapter, part_of

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"
PROVENANCE_FILE = "provenance.json"
SHARDED_MARK = ".metadata"
"""File in the folder of a sharded checkpoint (torch.distributed.checkpoint, written by FSDP2)."""

_MAX_LISTED = 40
"""Names listed per class of fault; the count is always exact."""


def native_name(name: str) -> str:
    """Turn a parameter name of `InternVL` into its checkpoint key."""
    return name if name.startswith("lm_head.") else f"model.{name}"


def native_tensors(model: InternVL, parts: Collection[str]) -> dict[str, Tensor]:
    """Map checkpoint keys to the model's own tensors (any shape, no copies), for the given parts.

    Adapters are left out: they lie beside the weights.
    """
    return {
        native_name(name.replace(BASE_MARK, "")): tensor
        for name, tensor in model.state_dict().items()
        if part_of(name) in parts and not is_adapter(name)
    }


def has_weights(folder: Path) -> bool:
    """Say whether a folder holds safetensors that could be loaded."""
    return (folder / INDEX_FILE).is_file() or (folder / WEIGHTS_FILE).is_file()


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors files of a folder, following the index of a sharded checkpoint; a file stands for itself.

    A sharded checkpoint of FSDP2 is a folder too: all its files are listed. An adapter comes behind its base's files.

    Raises:
        CheckpointError: there are no weights, or two sets of them, or a file that the index names is missing.
    """
    if folder.is_file():
        return [folder]
    if (base := base_of(folder)) != folder:
        return [*weight_files(base), folder / ADAPTER_FILE]
    if (folder / SHARDED_MARK).is_file():
        return sorted(path for path in folder.iterdir() if path.is_file())
    if (folder / INDEX_FILE).is_file():
        if (folder / WEIGHTS_FILE).is_file():  # transformers reads the one, others the other
            raise CheckpointError(f"{folder} holds both {WEIGHTS_FILE} and {INDEX_FILE}: delete the one that is stale")
        return read_index(folder, INDEX_FILE)
    if not (folder / WEIGHTS_FILE).is_file():
        raise CheckpointError(f"{folder} holds no complete weights; missing: {WEIGHTS_FILE}")
    return [folder / WEIGHTS_FILE]


def read_index(folder: Path, index: str) -> list[Path]:
    """List the shards that an index names.

    Raises:
        CheckpointError: a shard is missing or lies outside the folder, there are none, or the index is malformed.
    """
    places = read_json(folder / index).get("weight_map", {})
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(f"{folder / index}: weight_map is no mapping of tensors to files")
    names = sorted(set(places.values()))
    missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if missing or not names:
        raise CheckpointError(f"{folder} holds no complete weights; missing: {', '.join(missing) or 'all shards'}")
    return [folder / name for name in names]


def recorded_sha256(folder: Path) -> str | None:
    """Return the hash of the weights' content that lies recorded beside them; None = none is."""
    record = folder / PROVENANCE_FILE
    recorded = read_json(record).get("weights_sha256") if record.is_file() else None
    return None if recorded is None else str(recorded)


def sha256_of(source: Path) -> str:
    """Hash all weight files of a folder (in order), or one file, to 64 hex digits."""
    digest = hashlib.sha256()
    for file in weight_files(source):
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


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
    seen: list[tuple[str, Tensor]] = []
    for name, tensor in tensors:
        seen.append((name, tensor.to("meta")))
        if name in targets and tensor.shape == targets[name].shape:
            copy_tensor(targets[name], tensor)
    check_fit(seen, targets, origin)


@torch.no_grad()
def copy_tensor(target: Tensor, tensor: Tensor) -> None:
    """Copy a tensor into one of the same shape; of a sharded one, into the piece that lies on this rank.

    Every rank gives the whole tensor, so that none waits for another.
    """
    if not hasattr(target, "device_mesh"):  # no DTensor, whose module takes a second to import
        target.copy_(tensor)
        return
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(target, DTensor)
    target.copy_(distribute_tensor(tensor, target.device_mesh, target.placements, src_data_rank=None))


def check_fit(tensors: Iterable[tuple[str, Tensor]], targets: Mapping[str, Tensor], origin: str) -> None:
    """Compare names and shapes with what a model needs; no data is read.

    Args:
        tensors: (native key, tensor of any shape, which may lie on the meta device).
        targets: native key to a tensor of the right shape.
        origin: where the tensors come from, for the message.
    Raises:
        CheckpointError: unexpected, missing or mis-shaped tensors, all listed.
    """
    missing, unexpected, misshaped = set(targets), [], []
    for name, tensor in tensors:
        if name not in targets:
            unexpected.append(name)
            continue
        missing.discard(name)
        if tensor.shape != targets[name].shape:
            misshaped.append(f"{name} {tuple(tensor.shape)} instead of {tuple(targets[name].shape)}")
    faults = {"unexpected": unexpected, "missing": sorted(missing), "mis-shaped": misshaped}
    if any(faults.values()):
        raise CheckpointError(f"{origin} does not fit: " + "; ".join(_listed(k, v) for k, v in faults.items() if v))


def _listed(fault: str, names: list[str]) -> str:
    """Write one class of faults: count, then names."""
    more = f", and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return f"{len(names)} {fault}: {', '.join(names[:_MAX_LISTED])}{more}"
