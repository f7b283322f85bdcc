"""One row of a benchmark: its fields, and its images when they are asked for."""

from __future__ import annotations

import ast
import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_lab.errors import SampleError


@dataclass(frozen=True)
class Row:
    """Hold one row; no image is read before `load_images` is called."""

    fields: Mapping[str, Any]
    load_images: Callable[[], list[bytes]]
    """Read the image files' bytes, in order; raises SampleError."""


def no_images() -> list[bytes]:
    """Give the images of a row that has none."""
    return []


def as_list(value: Any) -> list[Any]:
    """Read a field that may hold one value, a list, or the text of a list (`['a', 'b']`, as TSV files store it)."""
    if value is None:
        return []
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        for parse in (json.loads, ast.literal_eval):
            try:
                parsed = parse(value)
            except (ValueError, SyntaxError):
                continue
            if isinstance(parsed, list):
                return parsed
        return [value]
    return list(value) if isinstance(value, (list, tuple)) else [value]


def decode_base64(text: str, key: str) -> bytes:
    """Decode one image of a TSV file.

    Raises:
        SampleError: `corrupt_image`.
    """
    try:
        return base64.b64decode(text.split("base64,", maxsplit=1)[-1], validate=True)
    except (binascii.Error, ValueError) as error:
        raise SampleError(key, "corrupt_image", f"not base64: {error}") from error


def read_file(path: str, roots: tuple[Path, ...], key: str) -> bytes:
    """Read an image file that a row names.

    Args:
        path: absolute, or relative to one of the roots; the authors' paths begin with `data/`, which may be left out.
        roots: folders to look in, in order.
        key: the row's key, for messages.
    Raises:
        SampleError: `missing_file`.
    """
    if "://" in path:  # an address stands for the file of the same name
        path = path.rsplit("/", maxsplit=1)[-1]
    for root in roots:
        for name in (path, path.removeprefix("./").removeprefix("data/")):
            if (root / name).is_file():
                return (root / name).read_bytes()
    raise SampleError(key, "missing_file", f"image {path} is not in {', '.join(map(str, roots))}")
