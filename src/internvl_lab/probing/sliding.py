"""Segment a picture larger than the encoder's crop: windows that overlap, their logits averaged."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


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
    resized = F.interpolate((total / count)[None], size=size, mode="bilinear", align_corners=False)
    return resized[0].argmax(0)
