"""The one structure that travels from the loader to the model: a pack as tensors.

Dimensions: T tokens, S samples, N tiles in the pack (DESIGN section 1).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor


@dataclass
class Batch:
    """Hold one pack. Not frozen, because Lightning moves dataclass fields between devices in place."""

    input_ids: Tensor
    """(1, T) int64."""
    labels: Tensor
    """(1, T) int64; the target of position t, already shifted inside its sample; IGNORE_INDEX = no loss."""
    position_ids: Tensor
    """(1, T) int64, restarting at 0 in each sample."""
    cu_seqlens: Tensor
    """(S + 1,) int32, start of each sample and the end of the last."""
    max_seqlen: int
    """Length of the longest sample, a plain int so that no device sync is needed."""
    loss_weights: Tensor
    """(1, T) float32; 0 where there is no label."""
    pixel_values: Tensor
    """(N, 3, H, W) uint8; N may be 0."""
    tiles_per_sample: Tensor
    """(S,) int32."""
    source_ids: Tensor
    """(S,) int32; position in the mixture's source names."""
    sample_keys: list[str]
    """S keys."""
    pack_number: int = 0
    """Position in the plan's stream of packs."""
    bad_samples: list[tuple[str, str, str]] = field(default_factory=list)
    """(key, reason, detail) of samples left out of this pack because they failed to decode."""

    def pin_memory(self) -> Batch:
        """Return the pack with its tensors in pinned memory (torch's DataLoader calls this)."""
        pinned: dict[str, Any] = {
            f.name: value.pin_memory() if isinstance(value := getattr(self, f.name), torch.Tensor) else value
            for f in fields(self)
        }
        return Batch(**pinned)

    @property
    def num_tokens(self) -> int:
        """Count the tokens T."""
        return self.input_ids.shape[1]

    @property
    def num_tiles(self) -> int:
        """Count the tiles N."""
        return self.pixel_values.shape[0]
