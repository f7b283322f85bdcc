"""Normalise tiles on the device that they are on."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from internvl_lab.constants import IMAGENET_MEAN, IMAGENET_STD


def normalise(pixel_values: Tensor, dtype: torch.dtype) -> Tensor:
    """Subtract ImageNet's mean and divide by its deviation: uint8 (N, 3, H, W) -> (N, 3, H, W) in `dtype`."""
    mean, std = _pixel_statistics(pixel_values.device)
    # in fp32 and in place, then one cast: bf16 constants would shift every pixel
    return pixel_values.float().sub_(mean).div_(std).to(dtype)


@cache
def _pixel_statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ImageNet's mean and deviation, each (3, 1, 1) fp32 in levels of 0 to 255; copied to a device once."""
    with torch.inference_mode(False):  # the first caller may be a generation, later ones train
        mean, std = (torch.tensor(v, device=device, dtype=torch.float32) for v in (IMAGENET_MEAN, IMAGENET_STD))
        return mean.view(3, 1, 1) * 255.0, std.view(3, 1, 1) * 255.0
