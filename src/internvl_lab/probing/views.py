"""Turn a picture of any size into the square an encoder sees.

Resize-then-crop of the authors' transforms is done as one resize of the part that remains: the same picture to within
the rounding of a pixel, and a picture of 1 x 5000 pixels costs no gigabytes on the way.
Source: authors' `build_transform_for_linear_probe`: bicubic; test: shorter side, centre crop; training: random
resized crop (area 8 to 100 %, aspect 3/4 to 4/3) and flip.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
ATTEMPTS = 10

Box = tuple[float, float, float, float]


def view_rng(seed: int, key: str, view: int) -> np.random.Generator:
    """Return the generator of one view of one picture: the same in any order, worker and epoch."""
    digest = hashlib.blake2b(f"{seed}|{view}|{key}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def square_view(image: Image.Image, size: int, rng: np.random.Generator | None = None) -> Tensor:
    """Cut and resize a picture to uint8 (3, size, size).

    Args:
        image: RGB of any size and aspect.
        size: edge in pixels.
        rng: draws a training view; None = the centre.
    """
    box = centre_box(image.size) if rng is None else random_box(image.size, rng)
    if image.size != (size, size) or box != (0, 0, size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    if rng is not None and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def centre_box(size: tuple[int, int]) -> Box:
    """Return the largest centred square (left, top, right, bottom) of a picture of (width, height) pixels."""
    width, height = size
    edge = min(width, height)
    left, top = (width - edge) / 2, (height - edge) / 2
    return left, top, left + edge, top + edge


def random_box(size: tuple[int, int], rng: np.random.Generator) -> Box:
    """Draw the box of a random resized crop, as torchvision does: ten attempts, then the centre."""
    width, height = size
    for _ in range(ATTEMPTS):
        area = width * height * rng.uniform(*AREA)
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            return left, top, left + w, top + h
    aspect = min(max(width / height, ASPECT[0]), ASPECT[1])
    w, h = min(width, round(height * aspect)) or 1, min(height, round(width / aspect)) or 1
    x, y = (width - w) / 2, (height - h) / 2
    return x, y, x + w, y + h
