"""Read parquet files as the Hugging Face hub distributes them: images are structs of bytes and path inside the rows.

Needs pyarrow (extra `[evaluation]`). Texts are read at once, image columns a row group at a time when they are asked
for; the last row group stays in memory, because questions follow each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from internvl_lab.errors import ConfigError, SampleError
from internvl_lab.evaluation.readers.row import Row, no_images, read_file


def read_parquet(path: Path, root: Path) -> Iterator[Row]:
    """Yield the rows of a file; columns that hold images (one, a list, or image_1, image_2, ...) come on demand.

    Args:
        path: the file.
        root: folder of images that have a path but no bytes.
    Raises:
        ConfigError: pyarrow is missing, or the file is broken.
    """
    table = _open(path)
    columns = table.schema_arrow.names
    images = tuple(name for name in columns if _holds_images(table.schema_arrow.field(name).type))
    texts = [name for name in columns if name not in images]
    number = 0
    for group in range(table.num_row_groups):
        rows = _read_group(table, path, group, texts)
        # with no text column pyarrow returns no rows at all
        count = table.metadata.row_group(group).num_rows
        for place in range(count):
            fields = rows[place] if rows else {}
            key = str(fields.get("index", fields.get("id", number)))
            load = partial(_load, path, group, images, place, (root, path.parent), key) if images else no_images
            yield Row({"index": str(number), **fields}, load)
            number += 1


def _open(path: Path) -> Any:
    """Open a parquet file."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(
            f"{path.name} is parquet: install the extra, pip install 'internvl-lab[evaluation]'"
        ) from error
    try:
        return parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigError(f"{path} is no readable parquet file: {error}") from error


def _read_group(table: Any, path: Path, group: int, columns: list[str]) -> list[dict[str, Any]]:
    """Read some columns of one row group."""
    import pyarrow

    try:
        rows: list[dict[str, Any]] = table.read_row_group(group, columns=columns).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigError(f"{path} is damaged in row group {group}: {' '.join(str(error).split())}") from error
    return rows


def _holds_images(kind: Any) -> bool:
    """Say whether a column's type is a struct with bytes, or a list of these."""
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind):
        kind = kind.value_type
    return bool(types.is_struct(kind) and kind.get_field_index("bytes") >= 0)


@lru_cache(maxsize=1)
def _image_columns(path: Path, group: int, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Read the image columns of one row group."""
    return _read_group(_open(path), path, group, list(columns))


def _load(
    path: Path, group: int, columns: tuple[str, ...], place: int, roots: tuple[Path, ...], key: str
) -> list[bytes]:
    """Read the images of one row, column by column; empty ones are left out."""
    try:
        row = _image_columns(path, group, columns)[place]
    except ConfigError as error:
        raise SampleError(key, "corrupt_image", str(error)) from error
    cells = [cell for name in columns for cell in (row[name] if isinstance(row[name], list) else [row[name]])]
    images = []
    for cell in cells:
        if cell is None:
            continue
        if cell.get("bytes"):
            images.append(bytes(cell["bytes"]))
        elif cell.get("path"):
            images.append(read_file(str(cell["path"]), roots, key))
    if not images:
        raise SampleError(key, "missing_image", f"{path.name} has no image in this row")
    return images
