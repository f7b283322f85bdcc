"""The one structure that travels from the loader to the model: a pack as tensors.

Dimensions: T tokens, S samples, N tiles in the pack (DESIGN section 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from internvl_lab.constants import IGNORE_INDEX


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

    visual_positions: Tensor | None = None
    """(N * V,) int64, where `<IMG_CONTEXT>` stands; None = the model looks for it."""
    supervised_rows: Tensor | None = None
    """(R,) int64, positions with a label, ascending; None = the model looks for them."""

    def locate(self, image_token_id: int) -> Batch:
        """Return the pack with the positions of visual tokens and labels.

        Found while the pack lies in host memory: a search on a GPU makes the host wait for all that is queued there.

        Args:
            image_token_id: id of `<IMG_CONTEXT>`.
        """
        found = self.input_ids[0] == image_token_id, self.labels[0] != IGNORE_INDEX
        visual, supervised = (mask.nonzero().flatten() for mask in found)
        return replace(self, visual_positions=visual, supervised_rows=supervised)

    def pin_memory(self) -> Batch:
        """Return the pack with its tensors in pinned memory (torch's DataLoader calls this)."""
        return self._mapped(Tensor.pin_memory)

    def to(self, device: torch.device) -> Batch:
        """Return the pack with its tensors on a device; from pinned memory the host does not wait for the copy."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return the pack with every tensor changed."""
        values: dict[str, Any] = {
            f.name: change(value) if isinstance(value := getattr(self, f.name), Tensor) else value for f in fields(self)
        }
        return Batch(**values)

    @property
    def num_tokens(self) -> int:
        """Count the tokens T."""
        return self.input_ids.shape[1]

    @property
    def num_tiles(self) -> int:
        """Count the tiles N."""
        return self.pixel_values.shape[0]
