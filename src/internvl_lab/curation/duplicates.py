"""Find duplicates among signed records: a pass of its own over an on-disk index.

    signatures of all chunks ── build_index ──> one file a column (376 bytes a record)
    for each band: sort its keys, compare every record with the first and the previous of its group ──> best match

Only one band's keys are in memory at a time: 16 bytes a record to sort them, and 24 for what was found (0.4 GB at ten
million). A record is only compared with earlier ones, so the first of its kind is kept.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from internvl_lab.curation.signatures import COLUMNS, NUM_BANDS, PICTURE_BANDS, PICTURE_BITS

RULES = ("exact_duplicate", "near_duplicate", "near_duplicate_image")
BLOCK = 65536
"""Pairs compared, and rows read, at a time."""
MIN_SIMILARITY = 0.5
"""Lower similarities are chance and not kept."""
FOUND = "found.npz"

Ints = NDArray[np.int64]
Numbers = NDArray[np.uint32]


@dataclass(frozen=True)
class Duplicates:
    """Hold, for each of N records and each rule, the best match among the earlier records."""

    score: dict[str, NDArray[np.float32]]
    """Rule to (N,); 0 = none."""
    of: dict[str, Numbers]
    """Rule to (N,): number of the earlier record, where there is one."""


def build_index(signatures: Sequence[Path], folder: Path) -> None:
    """Join the signatures of all chunks into one file a column; the folder appears when it is complete.

    Args:
        signatures: `.npz` files of the chunks, in order.
        folder: gets COLUMN.bin, rows (N, values).
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in COLUMNS:
        with (partial / f"{name}.bin").open("wb") as file:
            for path in signatures:
                with np.load(path, allow_pickle=False) as data:
                    file.write(np.ascontiguousarray(data[name]).tobytes())
    os.replace(partial, folder)


def find_duplicates(folder: Path) -> Duplicates:
    """Search an index, once: what was found is kept beside it."""
    found = folder / FOUND
    if not found.exists():
        matches = _search(_Index(folder))
        partial = folder / f".{FOUND}.partial"
        columns: dict[str, Any] = {f"score_{rule}": matches.score[rule] for rule in RULES}
        columns |= {f"of_{rule}": matches.of[rule] for rule in RULES}
        with partial.open("wb") as file:
            np.savez(file, **columns)
        os.replace(partial, found)
    with np.load(found, allow_pickle=False) as data:
        return Duplicates({k: data[f"score_{k}"] for k in RULES}, {k: data[f"of_{k}"] for k in RULES})


class _Index:
    """Read an index: single values of all records, or all values of some."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.size = (folder / "exact.bin").stat().st_size // (8 * COLUMNS["exact"][1])

    def column(self, name: str, value: int = 0) -> NDArray[Any]:
        """Read one value of every record: (N,), in blocks, so that nothing else stays in memory."""
        dtype, width = COLUMNS[name]
        values = np.empty(self.size, dtype)
        with (self.folder / f"{name}.bin").open("rb") as file:
            for start in range(0, self.size, BLOCK):
                block = np.fromfile(file, dtype, BLOCK * width).reshape(-1, width)
                values[start : start + len(block)] = block[:, value]
        return values

    def rows(self, name: str, records: Ints) -> NDArray[Any]:
        """Read all values of some records: (records, values)."""
        dtype, width = COLUMNS[name]
        rows: NDArray[Any] = np.memmap(self.folder / f"{name}.bin", dtype, "r").reshape(-1, width)[records]
        return rows


def _search(index: _Index) -> Duplicates:
    """Search all rules' candidates and keep each record's best match."""
    score = {rule: np.zeros(index.size, np.float32) for rule in RULES}
    of = {rule: np.zeros(index.size, np.uint32) for rule in RULES}

    def keep(rule: str, earlier: Ints, later: Ints, similarity: NDArray[np.float32]) -> None:
        better = (similarity >= MIN_SIMILARITY) & (similarity > score[rule][later])
        score[rule][later[better]] = similarity[better]
        of[rule][later[better]] = earlier[better]

    def equal(name: str, earlier: Ints, later: Ints) -> NDArray[np.bool_]:
        return np.asarray(index.rows(name, earlier) == index.rows(name, later))

    for earlier, later in _pairs(index.column("exact")):
        keep(RULES[0], earlier, later, equal("exact", earlier, later).all(axis=1).astype(np.float32))
    for band in range(NUM_BANDS):
        for earlier, later in _pairs(index.column("bands", band)):
            keep(RULES[1], earlier, later, equal("minhash", earlier, later).mean(axis=1, dtype=np.float32))
    for band in range(PICTURE_BANDS):
        for earlier, later in _pairs(_picture_keys(index, band)):
            differing = np.bitwise_count(index.rows("picture", earlier) ^ index.rows("picture", later))
            equal_bits = np.asarray(1 - differing.sum(axis=1) / PICTURE_BITS, np.float32)
            keep(RULES[2], earlier, later, equal_bits * equal("text", earlier, later)[:, 0])
    return Duplicates(score, of)


def _picture_keys(index: _Index, band: int) -> NDArray[np.uint64]:
    """Join a band of the perceptual hash with the text's hash: (N,); 0 without images."""
    text = index.column("text")
    mixed = (index.column("picture", band) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return np.where(text == 0, text, (text ^ mixed) | np.uint64(1))


def _pairs(keys: NDArray[np.uint64]) -> Iterator[tuple[Ints, Ints]]:
    """Yield blocks of (earlier, later) records with equal keys: each with the first and the previous of its group.

    Not with all of a group: that would be quadratic where a text is common. Key 0 means "none".
    """
    order = np.argsort(keys, kind="stable")
    order = order[np.searchsorted(keys, 0, side="right", sorter=order) :]
    in_group = np.flatnonzero(keys[order[1:]] == keys[order[:-1]]) + 1
    del keys
    starts = np.flatnonzero(np.diff(in_group, prepend=-1) != 1)
    lengths = np.diff(starts, append=len(in_group))
    first = order[np.repeat(in_group[starts] - 1, lengths)]
    previous, later = order[in_group - 1], order[in_group]
    apart = first != previous
    for earlier, record in ((first, later), (previous[apart], later[apart])):
        for start in range(0, len(record), BLOCK):
            yield earlier[start : start + BLOCK], record[start : start + BLOCK]
