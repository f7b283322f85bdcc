"""Encode every picture once and keep bf16 features on disk, mapped into memory; a killed pass goes on where it was.

    pictures ─ workers: read, cut ─> uint8 (B, 3, S, S) ─ encoder ─ extract ─> <folder>/linear@4.bin (rows, 2C)
                                                                              attention@4.bin (rows, 1+P, C)
                                                                     valid.bin (rows,)   rows.json: how far it got

Row v * N + i is view v of picture i. Rows are written in blocks of one encoder batch, so that a resumed pass makes the
same batches, and so the same bits, as one that was never interrupted. Features are rounded to bf16 also where they are
not stored (`extract`), so that a head sees the same numbers with and without the cache.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from internvl_lab.atomic import write_atomic
from internvl_lab.data.parent import exit_with_parent, signals_held
from internvl_lab.data.quarantine import too_many
from internvl_lab.errors import ConfigError, SampleError, ShardError
from internvl_lab.probing.encoder import Encoder
from internvl_lab.probing.heads import pool_tokens
from internvl_lab.probing.pictures import PictureSet, hash_of
from internvl_lab.probing.views import square_view, view_rng

log = logging.getLogger(__name__)

PROGRESS_FILE = "rows.json"
VALID_FILE = "valid.bin"
SAVE_EVERY_S = 5.0
"""Seconds between two notes of how far a pass got: what a kill can cost."""


@dataclass(frozen=True)
class FeaturePlan:
    """Say which features of which views are wanted."""

    heads: tuple[str, ...]
    """`linear` (pooled) and `attention` (tokens)."""
    depths: tuple[int, ...]
    """Absolute layers."""
    image_size: int
    seed: int = 0
    augmented: bool = False
    views: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """Name each kind of feature at each depth, for example `linear@4`."""
        return tuple(f"{head}@{depth}" for head in self.heads for depth in self.depths)

    def shape(self, name: str, encoder: Encoder) -> tuple[int, ...]:
        """Return the shape of one picture's feature: (2C,) or (1+P, C)."""
        width = encoder.config.hidden_size
        if name.startswith("linear@"):
            return (2 * width,)
        return (1 + (self.image_size // encoder.config.patch_size) ** 2, width)


@torch.no_grad()
def extract(encoder: Encoder, pixel_values: Tensor, heads: Sequence[str], depths: Sequence[int]) -> dict[str, Tensor]:
    """Encode uint8 pictures (N, 3, S, S) to bf16 features: `linear@d` (N, 2C), `attention@d` (N, 1+P, C)."""
    features: dict[str, Tensor] = {}
    for depth, tokens in enumerate(encoder.hidden_states(pixel_values)):
        if depth in depths:
            if "linear" in heads:
                features[f"linear@{depth}"] = pool_tokens(tokens.float()).bfloat16()
            if "attention" in heads:
                features[f"attention@{depth}"] = tokens.bfloat16()
        if depth == max(depths):
            break
    return features


class PictureViews(Dataset[tuple[Tensor, bool]]):
    """Read picture i in view v as uint8 (3, S, S), and whether it could be read.

    Args:
        pictures: the set.
        size: S.
        seed: of augmentation; None = the centre of every picture.
    """

    def __init__(self, pictures: PictureSet, size: int, seed: int | None) -> None:
        self.pictures, self.size, self.seed = pictures, size, seed

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.pictures)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, bool]:
        """Return (3, S, S) uint8 and True, or a black square and False for a picture that cannot be read."""
        index, view = item
        rng = None if self.seed is None else view_rng(self.seed, self.pictures.keys[index], view)
        try:
            return square_view(self.pictures.read(index), self.size, rng), True
        except SampleError as error:
            log.warning("%s: %s; left out", self.pictures.name, error)
            return torch.zeros(3, self.size, self.size, dtype=torch.uint8), False


def check_read(read: int, asked: int, name: str, max_bad_share: float) -> None:
    """Refuse a result for which too many pictures of a set, or all, could not be read.

    Raises:
        ShardError: names the set.
    """
    if not read or too_many(asked - read, asked, max_bad_share):
        raise ShardError(f"{asked - read} of {asked} pictures of {name} cannot be read, above max_bad_share")


def worker_options(num_workers: int) -> dict[str, Any]:
    """Return the arguments of a DataLoader with so many workers; forked, because sets of pictures are closures."""
    if num_workers == 0:
        return {}
    return {"num_workers": num_workers, "worker_init_fn": _init_worker, "multiprocessing_context": "fork"}


def _init_worker(worker: int) -> None:
    """Keep a loader's worker to one core, and from outliving its parent."""
    torch.set_num_threads(1)
    exit_with_parent()


class Features:
    """Give access to the stored features of one set of pictures.

    Args:
        folder: where they lie.
        shapes: name to the shape of one row.
        num_rows: views x pictures.
    """

    def __init__(self, folder: Path, shapes: Mapping[str, tuple[int, ...]], num_rows: int) -> None:
        self.folder, self.num_rows, self._whole = folder, num_rows, True
        folder.mkdir(parents=True, exist_ok=True)
        self._arrays = {name: self._map(f"{name}.bin", np.uint16, (num_rows, *shape)) for name, shape in shapes.items()}
        self.valid = self._map(VALID_FILE, np.uint8, (num_rows,))
        """(rows,) 1 = the picture could be read."""
        if not self._whole:  # a file is missing or cut: none of its rows count as done
            (folder / PROGRESS_FILE).unlink(missing_ok=True)

    def _map(self, name: str, dtype: type, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[Any]]:
        path = self.folder / name
        is_new = not path.is_file() or path.stat().st_size != math.prod(shape) * np.dtype(dtype).itemsize
        self._whole &= not is_new
        return np.memmap(path, dtype, "w+" if is_new else "r+", shape=shape)

    @property
    def rows_done(self) -> int:
        """Count the rows that are written for good."""
        path = self.folder / PROGRESS_FILE
        return int(json.loads(path.read_text(encoding="utf-8"))["rows"]) if path.is_file() else 0

    def write(self, start: int, features: Mapping[str, Tensor], valid: Tensor) -> None:
        """Store a block of rows from `start`: name to (B, ...) bf16, and (B,) bool."""
        stop = start + len(valid)
        for name, array in self._arrays.items():
            array[start:stop] = features[name].cpu().contiguous().view(torch.uint16).numpy()
        self.valid[start:stop] = valid.numpy()

    def commit(self, rows: int) -> None:
        """Note that all rows before `rows` are on disk."""
        for array in (*self._arrays.values(), self.valid):
            array.flush()
        write_atomic(self.folder / PROGRESS_FILE, json.dumps({"rows": rows}))

    def fetch(self, rows: Sequence[int] | NDArray[np.int64], names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return name to bf16 features of some rows, (B, 2C) or (B, 1+P, C); of all names, or of these alone."""
        wanted = self._arrays if names is None else names
        return {name: torch.from_numpy(self._arrays[name][rows]).view(torch.bfloat16) for name in wanted}


def encode_set(
    encoder: Encoder,
    pictures: PictureSet,
    plan: FeaturePlan,
    root: Path,
    *,
    device: torch.device,
    batch_size: int,
    num_workers: int = 0,
    max_bad_share: float = 0.01,
) -> Features:
    """Encode a set, or what is missing of it.

    Args:
        encoder: its tower is moved to `device`.
        pictures: N of them.
        plan: which features.
        root: gets a folder named by everything that decides the features.
        device, batch_size, num_workers: how fast it goes; features depend on the first two in the last bit only.
        max_bad_share: share of pictures that may be unreadable.
    Raises:
        ShardError: more pictures than that are unreadable.
        ConfigError: the disk has no room for the features.
    """
    seed = plan.seed if plan.augmented else None
    key = hash_of(encoder.fingerprint, pictures.fingerprint, plan, seed, batch_size, str(encoder.tower.dtype))
    num_rows = plan.views * len(pictures)
    shapes = {name: plan.shape(name, encoder) for name in plan.names}
    _check_room(root, 2 * num_rows * sum(math.prod(shape) for shape in shapes.values()), root / key)
    features = Features(root / key, shapes, num_rows)
    done = features.rows_done
    if done >= num_rows:
        return features
    log.info("%s: encoding %d pictures of %s", encoder.label, num_rows - done, pictures.name)
    loader = DataLoader(
        PictureViews(pictures, plan.image_size, seed),
        batch_sampler=[
            [(row % len(pictures), row // len(pictures)) for row in block]
            for block in _blocks(done, num_rows, batch_size)
        ],
        **worker_options(num_workers),
    )
    encoder.move_to(device)
    saved_at, bad = time.monotonic(), int((features.valid[:done] == 0).sum())
    for pixel_values, valid in _iterate(loader):
        block = extract(encoder, pixel_values.to(device), plan.heads, plan.depths)
        features.write(done, block, valid)
        done, bad = done + len(valid), bad + int((~valid).sum())
        if too_many(bad, done, max_bad_share) or bad == num_rows:
            raise ShardError(f"{bad} of {done} pictures of {pictures.name} cannot be read, above max_bad_share")
        if time.monotonic() - saved_at > SAVE_EVERY_S or done == num_rows:
            features.commit(done)
            saved_at = time.monotonic()
    return features


def _blocks(start: int, stop: int, size: int) -> Iterator[range]:
    """Cut rows into blocks; `start` is always the beginning of one."""
    return (range(first, min(first + size, stop)) for first in range(start, stop, size))


def _iterate(loader: DataLoader[tuple[Tensor, bool]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (B, 3, S, S) uint8 and (B,) bool; signals wait while the workers are made."""
    with signals_held():
        batches = iter(loader)
    yield from batches


def _check_room(root: Path, num_bytes: int, folder: Path) -> None:
    """Refuse features that do not fit on the disk."""
    if folder.is_dir():
        return
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if num_bytes > 0.9 * free:
        raise ConfigError(
            f"features would take {num_bytes / 1e9:.1f} GB of {free / 1e9:.1f} GB free in {root}: use "
            "probe.classification.cache=false, fewer depths or heads=[linear]"
        )
    log.info("features: %.2f GB in %s", num_bytes / 1e9, folder)
