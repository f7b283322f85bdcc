"""Rules about images; each takes the decoded images of one record, or the errors in their place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from internvl_lab.curation.rules.finding import NOTHING, Finding
from internvl_lab.errors import SampleError

Images = Sequence[Image.Image | SampleError]

SIDE = 128
"""Images are looked at in this size: JPEG noise averages out, small print does not vanish."""
TOLERANCE = 8
"""Levels that a pixel may differ from the commonest colour and still count as it."""


def unreadable_image(images: Images) -> Finding:
    """Count images that are missing or cannot be decoded. Unit: images.

    Source: ours; strict as training is (`data.transforms.decode_image`): a truncated file counts.
    """
    errors = [image for image in images if isinstance(image, SampleError)]
    return Finding(len(errors), f"{errors[0].reason}: {errors[0].detail}") if errors else NOTHING


def blank_image(images: Images) -> Finding:
    """Return the largest share of an image's area in one colour. Unit: share, in (0, 1].

    Source: ours; measured on a reduction to 128 x 128, in which one line of small print is 0.15 % of a page.
    """
    shares = [(_commonest_share(image), image) for image in images if isinstance(image, Image.Image)]
    if not shares:
        return NOTHING
    share, image = max(shares, key=lambda pair: pair[0])
    return Finding(share, f"{share:.2%} of {image.width} x {image.height} pixels in one colour")


def _commonest_share(image: Image.Image) -> float:
    """Return the share of pixels within `TOLERANCE` of the median colour."""
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.int16).reshape(-1, 3)
    away = np.abs(pixels - np.median(pixels, axis=0)).max(axis=1)
    return float((away <= TOLERANCE).mean())
