"""Note what is painted where: the labels that every picture of this dataset comes with for free.

Painters call `mark`; who wants the labels paints inside `recording`. Nobody else pays for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]
Mark = tuple[NDArray[np.uint8], Box, str]
"""(canvas (H, W, 3), box (x0, y0, x1, y1) in its pixels with exclusive end, words for what is there)."""

_marks: ContextVar[list[Mark] | None] = ContextVar("miniworld_marks", default=None)


@contextmanager
def recording() -> Iterator[list[Mark]]:
    """Collect the marks of everything that is painted inside the block."""
    marks: list[Mark] = []
    token = _marks.set(marks)
    try:
        yield marks
    finally:
        _marks.reset(token)


def mark(canvas: NDArray[np.uint8], box: Box, words: str) -> None:
    """Say that `words` (a character, or colour and shape) are in `box` of a canvas (H, W, 3)."""
    marks = _marks.get()
    if marks is not None:
        marks.append((canvas, box, words))


def regions_of(canvases: tuple[NDArray[np.uint8], ...], marks: list[Mark]) -> list[list[list[Any]]]:
    """Sort marks by canvas (H, W, 3): for each picture a list of [x0, y0, x1, y1, words], as records hold them."""
    return [[[*box, words] for marked, box, words in marks if marked is canvas] for canvas in canvases]
