"""Open files that hold tensors, of any kind we read, and look at shapes before reading data.

    model.safetensors, shards with their index      safe_open, tensors mapped from disk
    step_00000070.ckpt of a stage of ours           torch.load, weights only, mapped; a folder when FSDP2 wrote it
    *.bin, *.pt, *.pth                              the same, but only when pickle files are allowed

A checkpoint of any size is described in little memory; `read` brings in one tensor at a time.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from internvl_lab.checkpoints.base import base_of
from internvl_lab.checkpoints.sharded import STATE_DICT, ShardedFolder
from internvl_lab.checkpoints.tensors import (
    INDEX_FILE,
    SHARDED_MARK,
    WEIGHTS_FILE,
    has_weights,
    read_index,
    weight_files,
)
from internvl_lab.errors import CheckpointError, MissingWeightsError

CHECKPOINT_SUFFIX = ".ckpt"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth")
PICKLE_FILE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"
_REMAP_BYTES = 1 << 28
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class TensorFile(Protocol):
    """Give the tensors of one file by name."""

    def shapes(self) -> Mapping[str, Tensor]:
        """Return name to an empty tensor of any shape on the meta device: no data is read."""

    def read(self, name: str) -> Tensor:
        """Read one tensor, of any shape."""


@dataclass(frozen=True)
class SafetensorsFile:
    """Read a safetensors file; it is opened for each tensor, so that a mapping lives no longer than its tensor."""

    path: Path

    def shapes(self) -> Mapping[str, Tensor]:
        """Return name to an empty tensor of any shape, from the header alone.

        Raises:
            CheckpointError: an unreadable file, or a dtype this package has no use for.
        """
        result = {}
        try:
            with safe_open(self.path, framework="pt") as handle:
                for name in handle.keys():  # noqa: SIM118 - not a dict
                    view = handle.get_slice(name)
                    dtype = _DTYPES.get(view.get_dtype())
                    if dtype is None:
                        raise CheckpointError(
                            f"{self.path}: {name} has dtype {view.get_dtype()}, which is not read here"
                        )
                    result[name] = torch.empty(view.get_shape(), dtype=dtype, device="meta")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.path} is no readable safetensors file: {error}") from error
        return result

    def read(self, name: str) -> Tensor:
        """Read one tensor, of any shape."""
        with safe_open(self.path, framework="pt") as handle:
            tensor: Tensor = handle.get_tensor(name)
            return tensor


class TorchFile:
    """Read a file that torch wrote, mapped from disk.

    What was read stays in the mapping's memory, so the file is mapped anew every `_REMAP_BYTES`.

    Args:
        path: the file.
        allow_any: take any mapping of names to tensors, not only a `state_dict`.
    """

    def __init__(self, path: Path, allow_any: bool) -> None:
        self.path, self.allow_any = path, allow_any
        self._tensors, self._num_read = self._map(), 0

    def shapes(self) -> Mapping[str, Tensor]:
        """Return name to an empty tensor of any shape on the meta device."""
        return {name: torch.empty_like(tensor, device="meta") for name, tensor in self._tensors.items()}

    def read(self, name: str) -> Tensor:
        """Read one tensor of any shape, as a copy that does not hold the mapping."""
        if self._num_read > _REMAP_BYTES:
            self._tensors, self._num_read = self._map(), 0
        tensor = self._tensors[name].clone()
        self._num_read += tensor.nbytes
        return tensor

    def _map(self) -> Mapping[str, Tensor]:
        """Map the file and find the weights in it."""
        content = _load(self.path)
        found = content.get(STATE_DICT, content if self.allow_any else None) if isinstance(content, Mapping) else None
        if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
            kind = "mapping of names to tensors" if self.allow_any else f"{STATE_DICT} of a checkpoint"
            raise CheckpointError(f"{self.path} holds no {kind}")
        return found


def open_files(path: Path, allow_pickle: bool = False) -> list[TensorFile]:
    """Open what holds the weights of a source.

    Args:
        path: a folder (safetensors first, then pickle files), a sharded checkpoint's folder, or one file.
        allow_pickle: also read .bin, .pt and .pth; with `weights_only` even then.
    Raises:
        CheckpointError: an unreadable or missing file, or a pickle file that is not allowed.
        MissingWeightsError: nothing there that could hold weights.
    """
    if path.is_dir():
        if (path / SHARDED_MARK).is_file():
            return [ShardedFolder(path)]
        if has_weights(path):
            return [SafetensorsFile(file) for file in weight_files(path)]
        if pickles := _pickle_files(path):
            return [_open_file(file, allow_pickle) for file in pickles]
        raise MissingWeightsError(f"{path} holds neither {WEIGHTS_FILE} nor {INDEX_FILE}")
    if not path.is_file():
        raise MissingWeightsError(f"{path} does not exist")
    return [_open_file(path, allow_pickle)]


def holds_weights(path: Path) -> bool:
    """Say whether a folder or file could hold weights of a kind that `open_files` reads; nothing is opened."""
    if path.is_file():
        return path.suffix in (".safetensors", CHECKPOINT_SUFFIX, *PICKLE_SUFFIXES)
    path = base_of(path)
    return has_weights(path) or any((path / name).is_file() for name in (SHARDED_MARK, PICKLE_FILE, PICKLE_INDEX))


def _pickle_files(folder: Path) -> list[Path]:
    """List a folder's pickle files, following their index."""
    if (folder / PICKLE_INDEX).is_file():
        return read_index(folder, PICKLE_INDEX)
    return [folder / PICKLE_FILE] if (folder / PICKLE_FILE).is_file() else []


def _open_file(path: Path, allow_pickle: bool) -> TensorFile:
    """Open one file by its suffix."""
    if path.suffix == ".safetensors":
        return SafetensorsFile(path)
    if path.suffix == CHECKPOINT_SUFFIX:
        return TorchFile(path, allow_any=False)
    if path.suffix not in PICKLE_SUFFIXES:
        known = ", ".join((".safetensors", CHECKPOINT_SUFFIX, *PICKLE_SUFFIXES))
        raise CheckpointError(f"{path} is no file of weights; known are {known}")
    if not allow_pickle:
        refuse_pickle(path)
    return TorchFile(path, allow_any=True)


def refuse_pickle(path: Path) -> None:
    """Refuse a pickle file, or a folder that has its weights in such files alone.

    Raises:
        CheckpointError: saying how to convert it.
    """
    if (path.is_file() and path.suffix in PICKLE_SUFFIXES) or (not has_weights(path) and _pickle_files(path)):
        raise CheckpointError(
            f"{path} holds pickle files, which can run code when read: convert it to safetensors with "
            f"`python -m internvl_lab convert --in {path} --out DIR --format native --allow-pickle`"
        )


def _load(path: Path) -> Any:
    """Read a file of torch without running any code of it; tensors are mapped where the file allows it."""
    try:
        try:
            return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except RuntimeError:  # written in torch's old format, which cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} holds no plain tensors: {reason}") from error
