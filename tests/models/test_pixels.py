"""Normalisation of tiles equals the formula, in every dtype, and leaves its input alone."""

from __future__ import annotations

import pytest
import torch

from internvl_lab.constants import IMAGENET_MEAN, IMAGENET_STD
from internvl_lab.models.pixels import normalise


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_imagenets(dtype: torch.dtype) -> None:
    tiles = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    before = tiles.clone()
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    expected = (tiles.double() / 255 - mean) / std
    found = normalise(tiles, dtype)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-2)
    assert torch.equal(tiles, before)
