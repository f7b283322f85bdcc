"""Find duplicates among signed records: a pass of its own over an on-disk index.

    signatures of all chunks ── build_index ──> one file a column (376 bytes a record)
    for each band: sort its keys, compare every record with the first and the previous of its group ──> best match

Only one band's keys are in memory at a time. Measured with a tenth of copies: 17 MiB at 0.1 million records, 75 at one
and 478 at ten, beside 249 for the program; 147 s of one core at ten million, from an index of 3.8 GB. A record is only
compared with earlier ones, so the first of its kind is kept.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from internvl_lab.curation.signatures import COLUMNS, NUM_BANDS, NUM_PERMUTATIONS, PICTURE_BANDS, PICTURE_BITS

BLOCK = 65536
"""Pairs compared, and rows read, at a time."""
MIN_SIMILARITY = 0.5
"""Lower similarities are chance and not kept."""

Ints = NDArray[np.int64]
Numbers = NDArray[np.uint32]


@dataclass(frozen=True)
class Matches:
    """Hold, for the M records that have one, the best match of one rule among the earlier records."""

    record: Numbers
    """(M,) number of the record, rising."""
    of: Numbers
    """(M,) number of the earlier record."""
    score: NDArray[np.float32]
    """(M,) similarity, in [`MIN_SIMILARITY`, 1]."""

    def within(self, start: int, stop: int) -> Iterator[tuple[int, int, float]]:
        """Yield (record, of, score) of the records `start` ... `stop` - 1."""
        low, high = np.searchsorted(self.record, (start, stop))
        found = slice(int(low), int(high))
        columns = (self.record[found].tolist(), self.of[found].tolist(), self.score[found].tolist())
        yield from zip(*columns, strict=True)


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


def find_duplicates(folder: Path) -> dict[str, Matches]:
    """Search an index, once for each rule: what was found is kept beside it."""
    index = _Index(folder)
    return {rule: _search_once(index, rule, search) for rule, search in _SEARCHES.items()}


def _search_once(index: _Index, rule: str, search: Search) -> Matches:
    """Read what was found for one rule, or search."""
    path = index.folder / f"{rule}.npz"
    if not path.exists():
        best = _Best(index.size)
        search(index, best)
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            record = np.flatnonzero(best.score)
            np.savez(file, record=record.astype(np.uint32), of=best.of[record], score=best.score[record])
        os.replace(partial, path)
    with np.load(path, allow_pickle=False) as data:
        return Matches(data["record"], data["of"], data["score"])


class _Best:
    """Keep the best match of every record."""

    def __init__(self, size: int) -> None:
        self.score = np.zeros(size, np.float32)
        self.of = np.zeros(size, np.uint32)

    def keep(self, earlier: Ints, later: Ints, similarity: NDArray[Any]) -> None:
        """Take the matches that are better than what was found before; the arguments run parallel, (pairs,)."""
        better = (similarity >= MIN_SIMILARITY) & (similarity > self.score[later])
        self.score[later[better]] = similarity[better]
        self.of[later[better]] = earlier[better]


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
        """Read all values of some records: (records, values).

        Not through a memory map: the system maps 16 pages for one touched, 170 MiB for 1,100 pairs (measured).
        """
        dtype, width = COLUMNS[name]
        size = width * np.dtype(dtype).itemsize
        with (self.folder / f"{name}.bin").open("rb") as file:
            rows = b"".join(os.pread(file.fileno(), size, record * size) for record in records.tolist())
        return np.frombuffer(rows, dtype).reshape(-1, width)

    def equal(self, name: str, earlier: Ints, later: Ints) -> NDArray[np.bool_]:
        """Compare the values of pairs of records: (pairs, values)."""
        return np.asarray(self.rows(name, earlier) == self.rows(name, later))


def _exact(index: _Index, best: _Best) -> None:
    """Find records whose conversation and images are the same."""
    for earlier, later in _pairs(index.column("exact")):
        best.keep(earlier, later, np.asarray(index.equal("exact", earlier, later).all(axis=1), np.float32))


def _near(index: _Index, best: _Best) -> None:
    """Find records with similar texts and the same images."""
    for band in range(NUM_BANDS):
        for earlier, later in _pairs(index.column("bands", band)):
            equal = index.equal("minhash", earlier, later).sum(axis=1)
            best.keep(earlier, later, np.asarray(equal / NUM_PERMUTATIONS))


def _near_image(index: _Index, best: _Best) -> None:
    """Find records with similar images and the same words."""
    for band in range(PICTURE_BANDS):
        for earlier, later in _pairs(_picture_keys(index, band)):
            differing = np.bitwise_count(index.rows("picture", earlier) ^ index.rows("picture", later)).sum(axis=1)
            equal_bits = (1 - differing / PICTURE_BITS) * index.equal("text", earlier, later)[:, 0]
            best.keep(earlier, later, np.asarray(equal_bits))


def _picture_keys(index: _Index, band: int) -> NDArray[np.uint64]:
    """Join a band of the perceptual hash with the text's hash: (N,); 0 without images."""
    text = index.column("text")
    mixed = (index.column("picture", band) + np.uint64(1 + (band << 16))) * np.uint64(0x9E3779B97F4A7C15)
    return np.where(text == 0, text, (text ^ mixed) | np.uint64(1))


def _pairs(keys: NDArray[np.uint64]) -> Iterator[tuple[Ints, Ints]]:
    """Yield blocks of (earlier, later) records with equal keys: each with the first and the previous of its group.

    Not with all of a group: that would be quadratic where a text is common. Key 0 means "none".
    """
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    order, keys = order[(none := int(np.searchsorted(keys, 0, side="right"))) :], keys[none:]
    in_group = np.flatnonzero(keys[1:] == keys[:-1]) + 1
    del keys
    starts = np.flatnonzero(np.diff(in_group, prepend=-1) != 1)
    lengths = np.diff(starts, append=len(in_group))
    first = order[np.repeat(in_group[starts] - 1, lengths)]
    previous, later = order[in_group - 1], order[in_group]
    apart = first != previous
    for earlier, record in ((first, later), (previous[apart], later[apart])):
        for start in range(0, len(record), BLOCK):
            yield earlier[start : start + BLOCK], record[start : start + BLOCK]


Search = Callable[[_Index, _Best], None]
_SEARCHES: dict[str, Search] = {"exact_duplicate": _exact, "near_duplicate": _near, "near_duplicate_image": _near_image}
