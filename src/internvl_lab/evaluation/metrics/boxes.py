"""Grounding: does a predicted box overlap the reference with IoU >= 0.5.

Two readings. `is_box_hit` is strict, for miniworld: one well-formed box inside the image. `is_grounded` is the official
one of RefCOCO, which takes any four numbers in brackets and clips nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from internvl_lab.evaluation.metrics.pairs import field, share

Box = tuple[int, int, int, int]
"""x1, y1, x2, y2 in thousandths of the image's width and height, x1 < x2 and y1 < y2."""

BOX_SCALE = 1000
IOU_THRESHOLD = 0.5
_NUMBER = r"\s*(\d+)\s*"
_BOX = re.compile(rf"\[\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]\]")
_ANY_BOX = re.compile(r"\[*\[(.*?),(.*?),(.*?),(.*?)\]\]*")
_RELATIVE_SUM = 4
"""Coordinates that sum to less are shares of the image, not thousandths."""

Floats = NDArray[np.float32]


def parse_box(text: str) -> Box | None:
    """Read the first `[[x1, y1, x2, y2]]` of a text.

    Strict: four whole numbers from 0 to 1000, corners in order and a positive area; a list of several boxes is
    no answer to a question for one. Anything else is None.
    Source of the notation: spec section 7.
    """
    match = _BOX.search(text)
    if match is None:
        return None
    x1, y1, x2, y2 = (int(number) for number in match.groups())
    if max(x2, y2) > BOX_SCALE or x1 >= x2 or y1 >= y2:
        return None
    return x1, y1, x2, y2


def box_iou(a: Box, b: Box) -> float:
    """Divide the area two boxes share by the area they cover together."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (_area(a) + _area(b) - shared)


def _area(box: Box) -> int:
    """Multiply width and height."""
    return (box[2] - box[0]) * (box[3] - box[1])


def is_box_hit(prediction: str, reference: str) -> bool:
    """Say whether the predicted box overlaps the reference with IoU >= 0.5; no box is no hit.

    Raises:
        ValueError: the reference holds no box, which is a fault of the data.
    """
    wanted = parse_box(reference)
    if wanted is None:
        raise ValueError(f"reference {reference!r} holds no box [[x1, y1, x2, y2]] inside 0..{BOX_SCALE}")
    found = parse_box(prediction)
    return found is not None and box_iou(found, wanted) >= IOU_THRESHOLD


def box_hit(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return {"box_hit": share of answers with one well-formed box of IoU >= 0.5}, miniworld's rule.

    Raises:
        ValueError: no answers, not as many as references, or a reference without a box.
    """
    return {"box_hit": share(is_box_hit, predictions, references)}


def is_grounded(prediction: str, reference: Any) -> bool:
    """Say whether the first box of an answer has IoU >= 0.5 with the reference, in pixels and float32.

    Coordinates are thousandths of the image, or shares of it where they sum to less than 4; a box may reach beyond the
    image, and its corners may be fractions; no readable box is no hit.

    Raises:
        ValueError: the reference has no box.
    Source: authors' `internvl_chat/eval/refcoco/evaluate_grounding.py`.
    """
    wanted, size = _pixel_box(reference)
    with np.errstate(all="ignore"):  # an answer may hold nan, inf or 1e39, and such a box has no hit
        found = _read_numbers(prediction)
        if found.sum() >= _RELATIVE_SUM:
            found = found / np.float32(BOX_SCALE)
        found = found * size
        corner = np.minimum(found[2:], wanted[2:]) - np.maximum(found[:2], wanted[:2])
        shared = np.prod(np.maximum(corner, np.float32(0)))
        covered = np.prod(found[2:] - found[:2]) + np.prod(wanted[2:] - wanted[:2]) - shared
        return bool(covered != 0 and shared / covered >= IOU_THRESHOLD)


def _read_numbers(text: str) -> Floats:
    """Return the (4,) numbers of the first bracket of a text, zeros where there are none."""
    match = _ANY_BOX.search(text)
    try:
        return np.array([float(number) for number in match.groups()] if match else [0.0] * 4, np.float32)
    except ValueError:
        return np.zeros(4, np.float32)


def _pixel_box(reference: Any) -> tuple[Floats, Floats]:
    """Return a reference's box in pixels (4,) and the image's (width, height, width, height)."""
    if isinstance(reference, Mapping):
        width, height = reference.get("hw", (None, None))[::-1]
        width = field(reference, "width") if width is None else width
        height = field(reference, "height") if height is None else height
        return np.array(field(reference, "bbox", "gt_bbox"), np.float32), np.array([width, height] * 2, np.float32)
    box = parse_box(reference)
    if box is None:
        raise ValueError(f"reference {reference!r} holds no box [[x1, y1, x2, y2]] inside 0..{BOX_SCALE}")
    return np.array(box, np.float32), np.full(4, BOX_SCALE, np.float32)


def iou_at_50(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"iou_at_50": share of answers whose box has IoU >= 0.5 with the reference's}.

    Args:
        references: dicts with `bbox` (x1, y1, x2, y2 in pixels), `width` and `height` (or `hw`), as in the authors'
            JSONL; or a str with `[[x1, y1, x2, y2]]` in thousandths.
    Raises:
        ValueError: no answers, not as many as references, or a reference without a box.
    Source: see `is_grounded`.
    """
    return {"iou_at_50": share(is_grounded, predictions, references)}
