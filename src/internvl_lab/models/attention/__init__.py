"""Attention: inside the samples of a pack (language model), and inside tiles (encoder); backends by name."""

from internvl_lab.models.attention.packed import (
    BACKENDS,
    PACKED_ATTENTION,
    Backend,
    PackLayout,
    block_diagonal_mask,
    check_installed,
    is_half,
    packed_attention,
    resolve,
)
from internvl_lab.models.attention.tiles import TILE_BACKENDS, check_tiles, resolve_tiles, tile_attention

__all__ = [
    "BACKENDS",
    "PACKED_ATTENTION",
    "TILE_BACKENDS",
    "Backend",
    "PackLayout",
    "block_diagonal_mask",
    "check_installed",
    "check_tiles",
    "is_half",
    "packed_attention",
    "resolve",
    "resolve_tiles",
    "tile_attention",
]
