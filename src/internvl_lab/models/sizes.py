"""Count parameters, also of models far too large for this machine."""

from __future__ import annotations

import torch

from internvl_lab.config import ModelConfig
from internvl_lab.models.internvl import InternVL


def build_on_meta(config: ModelConfig, image_token_id: int = 0) -> InternVL:
    """Build a model whose tensors have shapes but no storage."""
    with torch.device("meta"):
        return InternVL(config, image_token_id)


def count_parameters(model: InternVL) -> dict[str, int]:
    """Count the parameters of each part and of the whole: keys vision, projector, language, total."""
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.parts().items()}
    return counts | {"total": sum(counts.values())}
