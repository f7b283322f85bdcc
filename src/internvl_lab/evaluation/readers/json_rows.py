"""Read JSON and JSONL files whose images are paths: the authors' own format, and most benchmarks' annotations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from internvl_lab.errors import ConfigError
from internvl_lab.evaluation.readers.row import Row, as_list, no_images, read_file

IMAGE_FIELDS = ("image", "images", "image_path", "input_image_path", "image_src")


def read_json_rows(path: Path, root: Path) -> Iterator[Row]:
    """Yield the rows of a file.

    Args:
        path: .jsonl (one object a line) or .json: a list of objects, an object of objects (their names become `index`),
            or an object with the list under `data`, `annotations` or `questions`.
        root: folder of relative image paths; the file's own folder is searched as well.
    Raises:
        ConfigError: the file cannot be parsed, or holds something else.
    """
    for number, fields in enumerate(_objects(path)):
        named = {"index": str(number), **_flat(fields)}
        names = next((as_list(named[name]) for name in IMAGE_FIELDS if named.get(name)), [])
        paths = [name for name in names if isinstance(name, str)]
        load = (
            partial(_load, paths, (root, path.parent, path.parent / "images"), str(named["index"]))
            if paths
            else no_images
        )
        yield Row(named, load)


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Lift the fields of nested objects up (MMIU keeps its question under `input`); outer names win."""
    inner = {name: value for nested in fields.values() if isinstance(nested, Mapping) for name, value in nested.items()}
    return {**inner, **fields}


def _objects(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".jsonl":
            content: Any = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            content = json.loads(text)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if isinstance(content, Mapping):
        content = next(
            (content[name] for name in ("data", "annotations", "questions") if isinstance(content.get(name), list)),
            [{"index": name, **value} for name, value in content.items() if isinstance(value, Mapping)],
        )
    if not isinstance(content, list) or not all(isinstance(row, Mapping) for row in content):
        raise ConfigError(f"{path} holds no list of objects")
    yield from content


def _load(names: list[str], roots: tuple[Path, ...], key: str) -> list[bytes]:
    """Read the image files of a row."""
    return [read_file(name, roots, key) for name in names]
