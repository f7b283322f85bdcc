"""From patches to visual tokens: pixel unshuffle, then transformers' two-layer MLP.

(N, 1+P, C) -> drop CLS -> (N, h, w, C) -> pixel unshuffle -> (N, V, 4C) -> LN, Linear, GELU, Linear -> (N, V, D)
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers.models.internvl.configuration_internvl import InternVLConfig
from transformers.models.internvl.modeling_internvl import InternVLMultiModalProjector

from internvl_lab.config import ModelConfig
from internvl_lab.models.language import to_transformers_language
from internvl_lab.models.vision import INITIALIZER_RANGE, to_transformers_vision


def pixel_unshuffle(features: Tensor, ratio: float) -> Tensor:
    """Trade grid resolution for channels, version 2 of the authors' `pixel_shuffle`.

    Args:
        features: (N, h, w, C) patch features, row-major.
        ratio: edge of the new grid over edge of the old one, 1 / an integer f.
    Returns:
        (N, h / f, w / f, f * f * C): cell (r, c) holds patches (f r, f c), (f r, f c + 1), (f r + 1, f c), ... each
        a contiguous block of C channels.
    Raises:
        ValueError: a grid that f does not divide.
    Source: spec section 1.4.
    """
    factor = round(1 / ratio)
    num, height, width, channels = features.shape
    if height % factor or width % factor:
        raise ValueError(f"a grid of {height} x {width} patches cannot be unshuffled by {factor}")
    cells = features.view(num, height // factor, factor, width // factor, factor, channels)
    return cells.permute(0, 1, 3, 2, 4, 5).reshape(num, height // factor, width // factor, factor**2 * channels)


def build_projector(cfg: ModelConfig) -> InternVLMultiModalProjector:
    """Build the MLP between encoder and language model with random weights, in torch's default dtype."""
    config = InternVLConfig(
        vision_config=to_transformers_vision(cfg.vision),
        text_config=to_transformers_language(cfg.language),
        downsample_ratio=cfg.projector.downsample_ratio,
    )
    projector = InternVLMultiModalProjector(config)
    for module in projector.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, INITIALIZER_RANGE)
            nn.init.zeros_(module.bias)
    return projector
