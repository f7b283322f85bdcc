"""Write tensors into safetensors of bounded size, in memory for one of them.

model.safetensors                                   when everything fits into one file
model-00001-of-00003.safetensors, ..., and model.safetensors.index.json     otherwise
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from internvl_lab.checkpoints.base import ADAPTER_CONFIG_FILE
from internvl_lab.checkpoints.files import write_json
from internvl_lab.checkpoints.tensors import INDEX_FILE, PROVENANCE_FILE, WEIGHTS_FILE
from internvl_lab.errors import CheckpointError

MAX_SHARD_BYTES = 5_000_000_000
"""Default size of a file, as transformers writes it."""


@dataclass(frozen=True)
class Output:
    """Describe one tensor to write."""

    name: str
    shape: Tensor
    """On the meta device: shape and dtype as written."""
    read: Callable[[], Tensor]
    """Brings in the data, in any dtype."""


def check_replaceable(folder: Path, sources: Iterable[Path] = ()) -> None:
    """Refuse to write where something would be lost: `new_folder` deletes what was there.

    Args:
        folder: to be written: new, empty, or an older one that this package wrote.
        sources: what is read while it is written; none may lie inside it.
    Raises:
        CheckpointError: saying what is in the way.
    """
    if folder.is_dir():
        ours = any((folder / name).is_file() for name in (PROVENANCE_FILE, ADAPTER_CONFIG_FILE))
        if not ours and any(folder.iterdir()):
            raise CheckpointError(
                f"{folder} holds files that internvl-lab did not write: name a new or an empty folder"
            )
        if inside := [str(source) for source in sources if folder.resolve() in source.resolve().parents]:
            raise CheckpointError(f"{folder} would be replaced, but it holds {', '.join(inside)}: name another folder")
    elif folder.exists():
        raise CheckpointError(f"{folder} is a file: name a folder")


def write_weights(
    folder: Path, outputs: Sequence[Output], max_shard_bytes: int = MAX_SHARD_BYTES, progress: bool = False
) -> None:
    """Write all tensors, one file after the other.

    Args:
        folder: exists already.
        outputs: in the order in which they are written.
        max_shard_bytes: most bytes of one file; a tensor larger than that gets a file of its own.
        progress: show a bar.
    Raises:
        CheckpointError: nothing to write, no size, or no room on the disk.
    """
    if not outputs or max_shard_bytes < 1:
        raise CheckpointError(f"{len(outputs)} tensors cannot be written in files of {max_shard_bytes} bytes")
    shards = plan_shards(outputs, max_shard_bytes)
    names = [WEIGHTS_FILE]
    if len(shards) > 1:
        names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    total = sum(output.shape.nbytes for output in outputs)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not progress) as bar:
        task = bar.add_task("", total=total)
        for name, shard in zip(names, shards, strict=True):
            bar.update(task, description=name)
            tensors = {}
            for output in shard:
                tensors[output.name] = _plain(output.read(), output.shape.dtype)
                bar.advance(task, output.shape.nbytes)
            try:
                save_file(tensors, folder / name, metadata={"format": "pt"})
            except (SafetensorError, OSError) as error:  # a full disk
                raise CheckpointError(f"{folder / name} cannot be written: {error}") from error
            del tensors  # before the next file's tensors come in
    if len(shards) > 1:
        places = {output.name: name for name, shard in zip(names, shards, strict=True) for output in shard}
        write_json(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": places})


def plan_shards(outputs: Iterable[Output], max_shard_bytes: int) -> list[list[Output]]:
    """Cut the tensors, in their order, into files of at most `max_shard_bytes`."""
    shards: list[list[Output]] = []
    room = 0
    for output in outputs:
        if not shards or output.shape.nbytes > room:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(output)
        room -= output.shape.nbytes
    return shards


def _plain(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor that safetensors takes: contiguous, of the given dtype, alone in its memory."""
    tensor = tensor.detach().to(dtype).contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
