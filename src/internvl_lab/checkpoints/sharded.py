"""Read the sharded checkpoint that FSDP2 writes, on one process and without running anything stored in it.

step_00000070.ckpt/  .metadata   pickled: names, shapes, dtypes, places     read with a list of allowed classes
                     *.distcp    tensors of each rank                       read by torch, weights only
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import filesystem as dcp_filesystem
from torch.distributed.checkpoint import metadata as dcp_metadata
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from internvl_lab.checkpoints.tensors import SHARDED_MARK
from internvl_lab.errors import CheckpointError

STATE_DICT = "state_dict"
"""Key of the weights in a Lightning checkpoint, plain or sharded."""

_PLAIN = {
    ("collections", "OrderedDict"),
    ("pathlib", "Path"),
    ("pathlib", "PosixPath"),
    ("pathlib", "PurePosixPath"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
}
_MODULES = (dcp_metadata.__name__, dcp_filesystem.__name__)


class _MetadataUnpickler(pickle.Unpickler):
    """Build only what torch's metadata consists of."""

    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed class; anything else could run code."""
        if name.isidentifier():
            found = getattr(torch, name, None) if module == "torch" else None
            if (module, name) in _PLAIN or isinstance(found, torch.dtype):
                return super().find_class(module, name)
            if module in _MODULES:
                found = super().find_class(module, name)
                if isinstance(found, type) and found.__module__ == module:
                    return found
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint's metadata")


class _SafeReader(FileSystemReader):
    """Read metadata through the unpickler above."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Read `.metadata`.

        Raises:
            CheckpointError: it is unreadable, or holds what could run code.
        """
        file = Path(self.path) / SHARDED_MARK
        try:
            with file.open("rb") as stream:
                content = _MetadataUnpickler(stream).load()
        except (pickle.UnpicklingError, OSError, EOFError, AttributeError, ImportError, IndexError) as error:
            raise CheckpointError(f"{file} cannot be read: {error}") from error
        if not isinstance(content, Metadata):
            raise CheckpointError(f"{file} holds no metadata of a sharded checkpoint")
        if content.storage_meta is None:
            content.storage_meta = dcp_metadata.StorageMeta()
        content.storage_meta.load_id = self.load_id
        return content


class ShardedFolder:
    """Give the weights of a sharded checkpoint; a tensor is put together from its ranks' pieces when read.

    Args:
        path: the checkpoint's folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def shapes(self) -> Mapping[str, Tensor]:
        """Return name to an empty tensor of any shape: the model's weights, without the optimizer's state."""
        return self._entries

    def read(self, name: str) -> Tensor:
        """Read one tensor, of any shape."""
        entry = self._entries[name]
        target = {f"{STATE_DICT}.{name}": torch.empty(entry.shape, dtype=entry.dtype)}
        load(target, storage_reader=_SafeReader(self.path), no_dist=True)
        return next(iter(target.values()))

    @cached_property
    def _entries(self) -> dict[str, Tensor]:
        """List the weights: name without `state_dict.`, to an empty tensor on the meta device."""
        stored = _SafeReader(self.path).read_metadata().state_dict_metadata
        return {
            key.removeprefix(f"{STATE_DICT}."): torch.empty(entry.size, dtype=entry.properties.dtype, device="meta")
            for key, entry in stored.items()
            if key.startswith(f"{STATE_DICT}.") and isinstance(entry, TensorStorageMetadata)
        }
