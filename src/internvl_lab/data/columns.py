"""Keep what is known of many samples in arrays: a tenth of the memory of Python's objects, and shared by forks.

```
N samples:  json_offset | text_tokens | kind | key, task (bytes and where each begins) | ...   one value a sample
M images:   offset | size | width | height     rows image_start[i] to image_start[i + 1] belong to sample i
R rounds:   tokens | lead_tokens | images      rows round_start[i] to round_start[i + 1]
```

One shard's table is made by `scan`, all of them are joined by `index`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

SAMPLE_COLUMNS = ("json_offset", "json_size", "json_crc", "text_tokens", "text_floor", "kind")
IMAGE_COLUMNS = ("image_offset", "image_size", "width", "height")
ROUND_COLUMNS = ("round_tokens", "lead_tokens", "round_images")
TEXT_COLUMNS = ("key", "task")
_RAGGED = {"image_start": IMAGE_COLUMNS, "round_start": ROUND_COLUMNS}


class TextColumn:
    """Hold N short texts as UTF-8 in one array; reads like a sequence of `str`.

    Args:
        data: (bytes,) uint8, all texts without separator.
        start: (N + 1,) int64, where each begins.
    """

    def __init__(self, data: NDArray[np.uint8], start: Ints) -> None:
        self.data, self.start = data, start

    @classmethod
    def of(cls, texts: Iterable[str]) -> TextColumn:
        """Make a column of texts."""
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        return cls(np.frombuffer(b"".join(encoded), np.uint8), starts(np.array([len(e) for e in encoded], np.int64)))

    def __len__(self) -> int:
        return len(self.start) - 1

    def __getitem__(self, row: int) -> str:
        if row < 0:
            row += len(self)
        return self.encoded(row).decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[row] for row in range(len(self)))

    def encoded(self, row: int) -> bytes:
        """Return one text as bytes."""
        return self.data[self.start[row] : self.start[row + 1]].tobytes()

    def tolist(self) -> list[str]:
        """Return all texts."""
        return list(self)

    def take(self, rows: Ints) -> TextColumn:
        """Pick texts.

        Args:
            rows: (n,) positions.
        """
        picked, start = pick_ragged(self.start, rows)
        return TextColumn(self.data[picked], start)

    @classmethod
    def concatenate(cls, columns: Sequence[TextColumn]) -> TextColumn:
        """Join columns, in order."""
        counts = [np.diff(column.start) for column in columns]
        return cls(np.concatenate([column.data for column in columns]), starts(np.concatenate(counts)))


@dataclass(kw_only=True)
class Table:
    """Hold the columns of N samples with M images and R rounds."""

    key: TextColumn
    """(N,)."""
    json_offset: Ints
    """(N,) int64, bytes."""
    json_size: NDArray[np.int32]
    """(N,) bytes."""
    json_crc: NDArray[np.uint32]
    """(N,) CRC-32 of the JSON member, so that the fingerprint covers its content."""
    text_tokens: NDArray[np.int32]
    """(N,) tokens of the encoded conversation without visual tokens; <img> and </img> count."""
    text_floor: NDArray[np.int32]
    """(N,) the fewest of them that cutting the last answer's end may leave."""
    kind: NDArray[np.int8]
    """(N,) position in `scan.KINDS`: 0 text, 1 image, 2 several images, 3 video."""
    task: TextColumn
    """(N,) field `task` of the record, "" if it has none."""
    image_start: Ints
    """(N + 1,): images of sample i are rows `image_start[i]` to `image_start[i + 1]` of the image columns."""
    image_offset: Ints
    """(M,) int64, bytes."""
    image_size: Ints
    """(M,) int64, bytes."""
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    """(M,) pixels, EXIF orientation applied."""
    round_start: Ints
    """(N + 1,): rounds (questions with their answers) of sample i; see `long_samples`."""
    round_tokens: NDArray[np.int32]
    """(R,) text tokens of a round."""
    lead_tokens: NDArray[np.int32]
    """(R,) text tokens of the same round at the head of a part, with `<image>` for each image it goes on with."""
    round_images: NDArray[np.int32]
    """(R,) images that a round brings."""

    def __len__(self) -> int:
        """Count the samples N."""
        return len(self.json_offset)

    @property
    def num_bytes(self) -> int:
        """Sum the memory of all columns."""
        arrays = self.arrays().values()
        return sum(array.nbytes for array in arrays)

    def images_of(self, row: int) -> range:
        """Return the rows of the image columns that belong to sample `row`."""
        return range(int(self.image_start[row]), int(self.image_start[row + 1]))

    def rounds_of(self, row: int) -> range:
        """Return the rows of the round columns that belong to sample `row`."""
        return range(int(self.round_start[row]), int(self.round_start[row + 1]))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return every column as plain arrays, for `np.savez`: (N,), (M,), (R,) and texts as (bytes,) and (N + 1,)."""
        plain = {name: getattr(self, name) for name in (*SAMPLE_COLUMNS, *_RAGGED)}
        plain |= {name: getattr(self, name) for columns in _RAGGED.values() for name in columns}
        for name in TEXT_COLUMNS:
            column: TextColumn = getattr(self, name)
            plain |= {f"{name}_bytes": column.data, f"{name}_start": column.start}
        return plain


def columns_from(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return the fields of `Table` from what `Table.arrays` gave: arrays (N,), (M,), (R,).

    Raises:
        KeyError: a column is missing.
    """
    plain = {name: arrays[name] for name in (*SAMPLE_COLUMNS, *_RAGGED)}
    plain |= {name: arrays[name] for columns in _RAGGED.values() for name in columns}
    texts = {name: TextColumn(arrays[f"{name}_bytes"], arrays[f"{name}_start"]) for name in TEXT_COLUMNS}
    return {**plain, **texts}


def take(table: Table, rows: Ints) -> Table:
    """Pick samples with their images and rounds.

    Args:
        rows: (n,) positions.
    """
    fields: dict[str, Any] = {name: getattr(table, name)[rows] for name in SAMPLE_COLUMNS}
    fields |= {name: getattr(table, name).take(rows) for name in TEXT_COLUMNS}
    for start, columns in _RAGGED.items():
        picked, fields[start] = pick_ragged(getattr(table, start), rows)
        fields |= {name: getattr(table, name)[picked] for name in columns}
    return Table(**fields)


def concatenate(tables: Sequence[Table]) -> Table:
    """Join tables, in order; at least one."""
    fields: dict[str, Any] = {
        name: np.concatenate([getattr(table, name) for table in tables])
        for name in (*SAMPLE_COLUMNS, *IMAGE_COLUMNS, *ROUND_COLUMNS)
    }
    for name in TEXT_COLUMNS:
        fields[name] = TextColumn.concatenate([getattr(table, name) for table in tables])
    for name in _RAGGED:
        fields[name] = starts(np.concatenate([np.diff(getattr(table, name)) for table in tables]))
    return Table(**fields)


def starts(counts: NDArray[np.integer[Any]]) -> Ints:
    """Return where each of n ragged rows begins, and the end: (n,) counts to (n + 1,) int64."""
    result = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=result[1:])
    return result


def pick_ragged(start: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """Return (positions of all items of the rows, where each row begins among them).

    Args:
        start: (N + 1,).
        rows: (n,) positions.
    """
    counts = start[rows + 1] - start[rows]
    new = starts(counts)
    return np.repeat(start[rows] - new[:-1], counts) + np.arange(new[-1]), new
