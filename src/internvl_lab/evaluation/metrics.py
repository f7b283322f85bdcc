"""Scores of answers against references.

Every metric has two forms: a judge of one answer (`is_exact`, `is_box_hit`) for reports that show single
samples, and a function over all answers that returns named scores from 0 to 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

Box = tuple[int, int, int, int]
"""x1, y1, x2, y2 in thousandths of the image's width and height, x1 < x2 and y1 < y2."""

BOX_SCALE = 1000
IOU_THRESHOLD = 0.5
_NUMBER = r"\s*(\d+)\s*"
_BOX = re.compile(rf"\[\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]\]")


def normalise_answer(text: str) -> str:
    """Strip the text and make every run of white space one space; case and punctuation count."""
    return " ".join(text.split())


def is_exact(prediction: str, reference: str) -> bool:
    """Say whether two texts are equal but for white space."""
    return normalise_answer(prediction) == normalise_answer(reference)


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


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return {"exact_match": share of answers equal to their reference but for white space}.

    Raises:
        ValueError: no answers, or not as many as references.
    """
    return {"exact_match": _share(is_exact, predictions, references)}


def iou_at_50(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return {"iou_at_50": share of answers whose box has IoU >= 0.5 with the reference's}.

    Raises:
        ValueError: no answers, not as many as references, or a reference without a box.
    Source: RefCOCO's accuracy, spec section 11.1.
    """
    return {"iou_at_50": _share(is_box_hit, predictions, references)}


def _share(judge: Callable[[str, str], bool], predictions: Sequence[str], references: Sequence[str]) -> float:
    """Average a judge over pairs."""
    if not predictions or len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions and {len(references)} references cannot be scored")
    return sum(judge(p, r) for p, r in zip(predictions, references, strict=True)) / len(predictions)


JUDGES: dict[str, Callable[[str, str], bool]] = {"exact_match": is_exact, "iou_at_50": is_box_hit}
"""Metric name to its judge of one answer."""
