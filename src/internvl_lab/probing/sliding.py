"""Segment a picture larger than the encoder's crop: windows that overlap, their logits averaged."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

CLASSES_AT_ONCE = 16
"""Maps that are held at the picture's own size: 0.8 GB for 12 megapixels, where ADE20K's 150 take 7."""


def windows(length: int, crop: int, stride: int) -> list[int]:
    """Return where windows start along one side; the last one is moved inside. Source: mmsegmentation's slide mode."""
    if length <= crop:
        return [0]
    number = -(-(length - crop) // stride) + 1
    return [min(k * stride, length - crop) for k in range(number)]


def slide(
    segment: Callable[[Tensor], Tensor], picture: Tensor, crop: int, stride: int, size: tuple[int, int]
) -> Tensor:
    """Segment a picture window by window.

    Args:
        segment: uint8 (1, 3, crop, crop) to logits (1, K, crop, crop).
        picture: uint8 (3, h, w), both at least `crop`.
        crop, stride: pixels.
        size: (height, width) of the answer.
    Returns:
        (height, width) classes: the mean logits, resized bilinearly, then the largest.
    """
    height, width = picture.shape[1:]
    total: Tensor | None = None
    count = torch.zeros(height, width, device=picture.device)
    for top in windows(height, crop, stride):
        for left in windows(width, crop, stride):
            area = (..., slice(top, top + crop), slice(left, left + crop))
            logits = segment(picture[area][None])[0].float()
            total = torch.zeros(len(logits), height, width, device=logits.device) if total is None else total
            total[area] += logits
            count[area] += 1
    assert total is not None
    return _largest(total / count, size)


def _largest(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize logits (K, h, w) to `size` and take the largest, a few classes at a time to spare memory."""
    classes = torch.zeros(size, dtype=torch.int64, device=logits.device)
    highest = torch.full(size, -torch.inf, device=logits.device)
    for first in range(0, len(logits), CLASSES_AT_ONCE):
        part = logits[None, first : first + CLASSES_AT_ONCE]
        value, index = F.interpolate(part, size=size, mode="bilinear", align_corners=False)[0].max(0)
        classes = torch.where(value > highest, index + first, classes)
        highest = torch.maximum(value, highest)
    return classes
