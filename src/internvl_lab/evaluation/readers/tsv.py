r"""Read VLMEvalKit's TSV files, whose images are base64 texts in the rows themselves.

Files have gigabytes, so one pass notes where each row begins and keeps all columns but the images; an image is read
again from its place when its question is asked. A row may give the index of another row instead of an image.

A row ends at a line break outside of quotation marks. As in pandas, a mark opens a cell only at the cell's beginning:
in `a 5" disk` it is a character like any other.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from internvl_lab.errors import ConfigError, SampleError
from internvl_lab.evaluation.readers.row import Row, as_list, decode_base64, no_images, read_file

IMAGE_COLUMN = "image"
LONGEST_INDEX = 64
"""An `image` no longer than this is the index of the row that holds it. Source: VLMEvalKit, `image_base.py`."""
LONG = "base64"
"""Stands for an image that is kept out of memory."""
_OPENING = re.compile(rb'(?:^|\t)"')
_QUOTED = re.compile(rb'[^"]*+(?:""[^"]*+)*+"')
"""The rest of a quoted cell, up to the first mark that is not doubled."""
csv.field_size_limit(sys.maxsize)


def read_tsv(path: Path, root: Path) -> Iterator[Row]:
    """Yield the rows of a TSV file; empty cells are left out of the fields.

    Args:
        path: file with a header; `image` holds base64 or an index, `image_path` names files.
        root: folder of `image_path`; `images/<name of the file>` in it is searched as well.
    Raises:
        ConfigError: the file is empty or no UTF-8, a row has more cells than the header, or a quotation never ends.
    """
    try:
        with path.open("rb") as stream:
            records = _records(stream)
            head = next(records, None)
            if head is None:
                raise ConfigError(f"{path} is empty")
            columns = _split(head[1])
            rows = [(place, _fields(columns, _split(record), path, place)) for place, record in records]
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"{path} is no readable TSV file: {error}") from error
    places = {fields["index"]: place for place, fields in rows if "index" in fields and IMAGE_COLUMN in fields}
    roots = (root / "images" / path.stem, root, path.parent)
    for place, fields in rows:
        key = fields.get("index", str(place))
        source = fields.pop(IMAGE_COLUMN, "")
        if source:
            owner = places.get(source, place) if source != LONG else place
            load: Callable[[], list[bytes]] = partial(_load, path, columns, owner, key)
        elif "image_path" in fields:
            load = partial(_load_files, as_list(fields["image_path"]), roots, key)
        else:
            load = no_images
        yield Row(fields, load)


def _records(stream: BinaryIO) -> Iterator[tuple[int, str]]:
    """Yield (place in the file, text) of each record; raises ValueError for one that no quotation mark ends."""
    place, parts, quoted = 0, list[bytes](), False
    start = 0
    for line in stream:
        if not parts:
            start = place
        place += len(line)
        parts.append(line)
        quoted = _ends_quoted(line.removeprefix(codecs.BOM_UTF8) if start == 0 else line, quoted)
        if not quoted:
            text = b"".join(parts).decode("utf-8-sig" if start == 0 else "utf-8")
            parts = []
            if text.strip():
                yield start, text
    if parts:
        raise ValueError(f"the quotation in the row at byte {start} never ends")


def _ends_quoted(line: bytes, quoted: bool) -> bool:
    """Say whether a line ends inside a quoted cell; `quoted` = it begins in one."""
    place = 0
    while found := _QUOTED.match(line, place) if quoted else _OPENING.search(line, place):
        place, quoted = found.end(), not quoted
    return quoted


def _split(record: str) -> list[str]:
    """Split one record into its cells."""
    return next(csv.reader(io.StringIO(record, newline=""), delimiter="\t"), [])


def _fields(columns: list[str], cells: list[str], path: Path, place: int) -> dict[str, str]:
    """Name the cells of a record; long images are replaced by a mark."""
    if len(cells) > len(columns):
        raise ConfigError(f"{path}: the row at byte {place} has {len(cells)} cells, the header {len(columns)}")
    fields = {column: cell for column, cell in zip(columns, cells, strict=False) if cell != ""}
    if len(fields.get(IMAGE_COLUMN, "")) > LONGEST_INDEX:
        fields[IMAGE_COLUMN] = LONG
    return fields


def _load(path: Path, columns: list[str], place: int, key: str) -> list[bytes]:
    """Read the images of the row that begins at a place."""
    with path.open("rb") as stream:
        stream.seek(place)
        _, record = next(_records(stream))
    cells = dict(zip(columns, _split(record), strict=False))
    images = as_list(cells.get(IMAGE_COLUMN))
    if not images or len(str(images[0])) <= LONGEST_INDEX:
        raise SampleError(key, "missing_image", f"{path.name} has no image of this row")
    return [decode_base64(str(image), key) for image in images]


def _load_files(names: list[str], roots: tuple[Path, ...], key: str) -> list[bytes]:
    """Read images that lie beside the file."""
    return [read_file(name, roots, key) for name in names]
