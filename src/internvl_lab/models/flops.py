"""Required floating-point operations of a training step, for MFU, x axes of studies and pack balance.

A product of (m, k) and (k, n) counts 2 m k n. Only required work counts: no recomputation, causal attention at half its
square, the head only on supervised rows. A trainable part costs three forwards (forward, input gradient,
weight gradient), a frozen part with trainable parts below it two, a frozen part above nothing trainable one;
attention scores have no weights, so wherever a gradient passes they cost three. Pixels need no gradient, so the
patch embedding costs two at most.
Source: research notes, section D; Kaplan et al. 2020, section 2.1 for the factor 2 N.
"""

from __future__ import annotations

from collections.abc import Collection

from internvl_lab.config import ModelConfig
from internvl_lab.constants import PARTS

FLOP_PARTS = ("vision", "projector", "language", "attention", "head")
"""Encoder, projector, layers of the language model without their attention scores, these scores, output layer."""


def vision_flops(config: ModelConfig) -> tuple[float, float, float]:
    """Count the forward of one tile: (patch embedding, matrix products of the layers, attention scores)."""
    vision = config.vision
    num_patches = (vision.image_size // vision.patch_size) ** 2
    tokens, width = num_patches + 1, vision.hidden_size
    patches = 2.0 * num_patches * 3 * vision.patch_size**2 * width
    layer = 2.0 * tokens * (4 * width**2 + 2 * width * vision.intermediate_size)
    scores = 4.0 * tokens**2 * width
    return patches, vision.num_hidden_layers * layer, vision.num_hidden_layers * scores


def projector_flops(config: ModelConfig) -> float:
    """Count the forward of one tile through pixel unshuffle and MLP."""
    channels = config.vision.hidden_size / config.projector.downsample_ratio**2
    width = config.language.hidden_size
    return 2 * config.num_visual_tokens * (channels * width + width**2)


def language_flops(config: ModelConfig, causal: bool = True) -> tuple[float, float, float]:
    """Count the forward of the language model: (per token, per squared sample length, per supervised row)."""
    language = config.language
    width = language.hidden_size
    key_width = width // language.num_attention_heads * language.num_key_value_heads
    layer = 2 * width * width + 2 * width * key_width + 3 * width * language.intermediate_size
    scores = language.num_hidden_layers * (2 if causal else 4) * width
    return 2.0 * language.num_hidden_layers * layer, float(scores), 2.0 * width * language.vocab_size


def step_flops(
    config: ModelConfig,
    *,
    tokens: float,
    sum_sq: float,
    tiles: float,
    supervised_rows: float,
    trainable: Collection[str],
    adapted: Collection[str] = (),
    causal: bool = True,
) -> float:
    """Count the operations of forward and backward of one pack, or of many added up.

    Args:
        config: sizes.
        tokens: T.
        sum_sq: sum of squared sample lengths.
        tiles: N.
        supervised_rows: positions with a label.
        trainable: parts that train; empty = a forward only.
        adapted: frozen parts with adapters inside, whose own operations (below 1 %) are left out.
        causal: count half the square (what is required); false counts what dense kernels do.
    """
    parts = flops_by_part(
        config,
        tokens=tokens,
        sum_sq=sum_sq,
        tiles=tiles,
        supervised_rows=supervised_rows,
        trainable=trainable,
        adapted=adapted,
        causal=causal,
    )
    return sum(parts.values())


def flops_by_part(
    config: ModelConfig,
    *,
    tokens: float,
    sum_sq: float,
    tiles: float,
    supervised_rows: float,
    trainable: Collection[str],
    adapted: Collection[str] = (),
    causal: bool = True,
) -> dict[str, float]:
    """Split the operations of `step_flops`, whose arguments these are, by where they are done.

    Returns:
        The figures named in `FLOP_PARTS`, in that order; the encoder's own attention counts as `vision`.
    """
    per_token, per_square, per_row = language_flops(config, causal)
    weights, scores = _factors("language", trainable, adapted)
    values = (
        tiles * _encoder_cost(config, trainable, adapted),
        tiles * _projector_cost(config, trainable, adapted),
        tokens * weights * per_token,
        sum_sq * scores * per_square,
        supervised_rows * weights * per_row,
    )
    return dict(zip(FLOP_PARTS, values, strict=True))


def pack_cost(
    config: ModelConfig, trainable: Collection[str], adapted: Collection[str] = ()
) -> tuple[float, float, float]:
    """Return (a, b, c) of the cost a * tokens + b * sum of squared sample lengths + c * tiles, in operations.

    The head is left out: how many rows are supervised is unknown before a sample is read.
    """
    per_token, per_square, _ = language_flops(config)
    weights, scores = _factors("language", trainable, adapted)
    return weights * per_token, scores * per_square, _tile_cost(config, trainable, adapted)


def _tile_cost(config: ModelConfig, trainable: Collection[str], adapted: Collection[str]) -> float:
    """Count forward and backward of encoder and projector for one tile."""
    return _encoder_cost(config, trainable, adapted) + _projector_cost(config, trainable, adapted)


def _encoder_cost(config: ModelConfig, trainable: Collection[str], adapted: Collection[str]) -> float:
    patches, products, squares = vision_flops(config)
    weights, scores = _factors("vision", trainable, adapted)
    return min(weights, 2) * patches + weights * products + scores * squares


def _projector_cost(config: ModelConfig, trainable: Collection[str], adapted: Collection[str]) -> float:
    return _factors("projector", trainable, adapted)[0] * projector_flops(config)


def _factors(part: str, trainable: Collection[str], adapted: Collection[str]) -> tuple[int, int]:
    """Return how many forwards a part costs: (its matrix products, its attention scores)."""
    trains = part in trainable
    below = any(name in trainable or name in adapted for name in PARTS[: PARTS.index(part)])
    passes = below or part in adapted
    return 1 + (2 if trains else int(passes)), 3 if trains or passes else 1
