"""Pixel unshuffle v2 by hand, and the projector's random weights."""

from __future__ import annotations

import pytest
import torch

from internvl_lab.config import ModelConfig
from internvl_lab.models import build_projector, pixel_unshuffle


def test_cells_are_row_major_and_hold_their_four_patches_in_order() -> None:
    grid = torch.arange(2 * 4 * 6 * 3).view(2, 4, 6, 3)
    cells = pixel_unshuffle(grid, 0.5)
    assert cells.shape == (2, 2, 3, 12)
    for row in range(2):
        for column in range(3):
            patches = [grid[:, 2 * row + r, 2 * column + c] for r in (0, 1) for c in (0, 1)]
            assert torch.equal(cells[:, row, column], torch.cat(patches, dim=-1))


def test_a_grid_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="5 x 4 patches"):
        pixel_unshuffle(torch.zeros(1, 5, 4, 2), 0.5)


def test_it_maps_four_patches_to_one_language_token_with_sound_weights(config: ModelConfig) -> None:
    projector = build_projector(config)
    assert projector(torch.randn(3, 4, 64)).shape == (3, 4, 32)
    assert 0.015 < projector.linear_1.weight.std() < 0.025
    assert not projector.linear_1.bias.any()
    assert not projector.linear_2.bias.any()
