"""Turn a picture and its mask into what segmentation trains on and is tested on.

    training   scale 0.5..2 ─ crop (at most 75 % of one class) ─ flip ─ colour jitter ─ pad to the crop's size
    test       shorter side to the crop's size, the longer one to a multiple of the patch; windows do the rest

Source: authors' `configs/_base_/datasets/ade20k_504x504.py`.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from internvl_lab.constants import IMAGENET_MEAN
from internvl_lab.errors import SampleError
from internvl_lab.probing.masks import IGNORED, Mask, MaskSet
from internvl_lab.probing.views import view_rng

log = logging.getLogger(__name__)

SCALES = (0.5, 2.0)
LONGEST = 4
"""The longer side, over the crop's size, of a picture at scale 1 (2016 / 504); beyond it the picture is squashed."""
MAX_ONE_CLASS = 0.75
ATTEMPTS = 10
BRIGHTNESS = 32
"""Levels of 256."""
CONTRAST = SATURATION = (0.5, 1.5)
HUE = 18
"""Of 180: OpenCV's hue counts in steps of two degrees, which makes 36 degrees."""
PADDING = tuple(round(255 * level) for level in IMAGENET_MEAN)
"""Of a crop that the picture does not fill; the authors pad with 0 after normalisation."""


def scaled_size(size: tuple[int, int], short: int, multiple: int = 1) -> tuple[int, int]:
    """Return (width, height): the shorter side `short` pixels, the longer a multiple, at most four times as long."""
    width, height = size
    long = round(min(short * max(size) / min(size), LONGEST * short))
    long = -(-long // multiple) * multiple  # up, as mmsegmentation's ResizeToMultiple
    return (short, long) if width <= height else (long, short)


def training_view(image: Image.Image, mask: Mask, size: int, rng: np.random.Generator | None) -> tuple[Tensor, Tensor]:
    """Cut a training crop.

    Args:
        image: RGB.
        mask: (H, W) of the same picture.
        size: S.
        rng: draws; None = the whole picture squashed to the crop's size.
    Returns:
        uint8 (3, S, S), ImageNet's mean outside the picture, which is 0 when normalised, and int64 (S, S), 255 there.
    """
    if rng is None:
        target = (size, size)
    else:
        short = max(1, round(size * rng.uniform(*SCALES)))
        target = scaled_size(image.size, short)
    image = image.resize(target, Image.Resampling.BILINEAR) if image.size != target else image
    shape = (mask.shape[1], mask.shape[0])
    mask = mask if shape == target else np.array(Image.fromarray(mask).resize(target, Image.Resampling.NEAREST))
    if rng is not None:
        left, top = _crop_at(mask, size, rng)
        image = jitter(image.crop((left, top, min(left + size, target[0]), min(top + size, target[1]))), rng)
        mask = mask[top : top + size, left : left + size]
        if rng.random() < 0.5:
            image, mask = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), mask[:, ::-1]
    pixels = np.full((size, size, 3), PADDING, np.uint8)
    pixels[: image.height, : image.width] = np.asarray(image)
    classes = np.full((size, size), IGNORED, np.int64)
    classes[: mask.shape[0], : mask.shape[1]] = mask
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), torch.from_numpy(classes)


def _crop_at(mask: Mask, size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw a corner; up to ten times, as long as one class fills more than three quarters of the crop."""
    height, width = mask.shape
    left = top = 0
    for _ in range(ATTEMPTS):
        left, top = int(rng.integers(0, max(width - size, 0) + 1)), int(rng.integers(0, max(height - size, 0) + 1))
        crop = mask[top : top + size, left : left + size]
        counts = np.bincount(crop[crop != IGNORED], minlength=2)
        if (counts > 0).sum() > 1 and counts.max() < MAX_ONE_CLASS * counts.sum():
            break
    return left, top


def jitter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Vary brightness, contrast, saturation and hue, each with probability one half; contrast comes second or last.

    Source: mmsegmentation's `PhotoMetricDistortion`, whose defaults the authors' configs take; it rounds to whole
    levels between saturation and hue once more than this.
    """
    pixels = np.asarray(image)
    if rng.random() < 0.5:
        pixels = _linear(pixels, 1.0, rng.uniform(-BRIGHTNESS, BRIGHTNESS))
    contrast_last = rng.random() < 0.5
    if not contrast_last and rng.random() < 0.5:
        pixels = _linear(pixels, rng.uniform(*CONTRAST))
    saturation = rng.uniform(*SATURATION) if rng.random() < 0.5 else None
    hue = int(rng.integers(-HUE, HUE)) if rng.random() < 0.5 else None
    if saturation is not None or hue is not None:
        hsv = np.array(Image.fromarray(pixels).convert("HSV"))
        hsv[..., 0] += np.uint8(round((hue or 0) * 256 / 180) % 256)
        hsv[..., 1] = hsv[..., 1] if saturation is None else _linear(hsv[..., 1], saturation)
        pixels = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))
    if contrast_last and rng.random() < 0.5:
        pixels = _linear(pixels, rng.uniform(*CONTRAST))
    return Image.fromarray(pixels)


def _linear(levels: NDArray[np.uint8], factor: float, shift: float = 0.0) -> NDArray[np.uint8]:
    """Scale and shift levels of any shape, cut to 0..255 and rounded down."""
    cut: NDArray[np.float32] = np.clip(levels.astype(np.float32) * factor + shift, 0, 255)
    return cut.astype(np.uint8)


class TrainingMasks(Dataset[tuple[Tensor, Tensor, bool]]):
    """Read the crop of a step: an item is (picture, step).

    Args:
        masks: the set.
        size: S.
        seed: of augmentation; None = off.
    """

    def __init__(self, masks: MaskSet, size: int, seed: int | None) -> None:
        self.masks, self.size, self.seed = masks, size, seed

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, Tensor, bool]:
        """Return uint8 (3, S, S), int64 (S, S), and whether the picture could be read; if not, all is ignored."""
        index, step = item
        try:
            image, mask = self.masks.read(index)
        except SampleError as error:
            log.warning("%s: %s; left out", self.masks.name, error)
            black = torch.zeros(3, self.size, self.size, dtype=torch.uint8)
            return black, torch.full((self.size, self.size), IGNORED), False
        rng = None if self.seed is None else view_rng(self.seed, self.masks.keys[index], step)
        return *training_view(image, mask, self.size, rng), True


def window_view(image: Image.Image, size: int, patch_size: int) -> Tensor:
    """Scale a picture for the sliding window: uint8 (3, h, w) with the shorter side `size`."""
    target = scaled_size(image.size, size, patch_size)
    image = image if image.size == target else image.resize(target, Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
