"""What others run: transformers' `InternVLForConditionalGeneration` on padded batches, and on packs.

Every choice that could go either way goes the peer's way: tiles arrive as normalised floats (ours normalises uint8
inside the step), no KV cache is built, and gradients accumulate to as many optimizer steps as ours takes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers.models.internvl.configuration_internvl import InternVLConfig
from transformers.models.internvl.modeling_internvl import InternVLForConditionalGeneration

from internvl_lab.checkpoints.configs import to_native_config
from internvl_lab.checkpoints.tensors import native_tensors
from internvl_lab.constants import IGNORE_INDEX, IMAGENET_MEAN, IMAGENET_STD, PARTS
from internvl_lab.data.encoding import Sample
from internvl_lab.models import InternVL

Inputs = dict[str, Tensor]
"""Keywords of the peer's forward."""

_PAD_ID = 0


def build_peer(model: InternVL, recompute: bool = False) -> InternVLForConditionalGeneration:
    """Build transformers' model with a copy of our weights, in our dtype, with its own SDPA attention.

    Args:
        model: gives sizes and weights.
        recompute: checkpoint the activations of all layers.
    """
    config = InternVLConfig.from_dict(to_native_config(model, model.config.dtype))
    peer = InternVLForConditionalGeneration._from_config(config, dtype=model.dtype, attn_implementation="sdpa")
    peer.load_state_dict(native_tensors(model, PARTS))
    if recompute:
        peer.activation_checkpointing_enable({"use_reentrant": False})
    return peer  # type: ignore[no-any-return]


def peer_loss(peer: InternVLForConditionalGeneration, inputs: Inputs, num_targets: int) -> Tensor:
    """Compute the peer's loss as transformers' Trainer does.

    Args:
        peer: the model.
        inputs: from `padded_inputs` or `packed_inputs`.
        num_targets: supervised tokens of the whole optimizer step.
    Returns:
        () sum of cross-entropies over `num_targets`.
    """
    loss: Tensor = peer(**inputs, use_cache=False, num_items_in_batch=num_targets).loss
    return loss


def padded_batches(samples: Sequence[Sample], batch_size: int, sort: bool) -> list[list[Sample]]:
    """Split samples into batches, in arrival order or (longest first) by length."""
    ordered = sorted(samples, key=lambda sample: -len(sample.input_ids)) if sort else list(samples)
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def padded_inputs(samples: Sequence[Sample], dtype: torch.dtype) -> Inputs:
    """Pad a batch on the right: input_ids, labels, attention_mask (B, T), with T the longest sample."""
    longest = max(len(sample.input_ids) for sample in samples)

    def rows(columns: list[np.ndarray], fill: int) -> Tensor:
        """Pad columns to equal length and stack them: (B, L)."""
        padded = [np.pad(column, (0, longest - len(column)), constant_values=fill) for column in columns]
        return torch.from_numpy(np.stack(padded).astype(np.int64))

    return {
        "input_ids": rows([sample.input_ids for sample in samples], _PAD_ID),
        "labels": rows([unshifted_labels(sample) for sample in samples], IGNORE_INDEX),
        "attention_mask": rows([np.ones_like(sample.input_ids) for sample in samples], 0),
        **_pixels(samples, dtype),
    }


def packed_inputs(samples: Sequence[Sample], dtype: torch.dtype) -> Inputs:
    """Join samples to one row (1, T), as transformers' own packing wants it.

    No mask, and positions that restart: it then finds the samples itself. Each sample's first label is ignored, or the
    sample before would have to predict it.
    """
    columns = {
        "input_ids": [sample.input_ids for sample in samples],
        "labels": [unshifted_labels(sample) for sample in samples],
        "position_ids": [np.arange(len(sample.input_ids)) for sample in samples],
    }
    joined = {name: torch.from_numpy(np.concatenate(parts).astype(np.int64))[None] for name, parts in columns.items()}
    return {**joined, **_pixels(samples, dtype)}


def unshifted_labels(sample: Sample) -> np.ndarray:
    """Turn targets (T,) into transformers' labels (T,), which the model shifts itself; the first is ignored."""
    return np.concatenate(([IGNORE_INDEX], sample.labels[:-1]))


def num_targets(samples: Sequence[Sample]) -> int:
    """Count the supervised tokens of some samples."""
    return sum(int((sample.labels != IGNORE_INDEX).sum()) for sample in samples)


def padding_share(batches: Sequence[Sequence[Sample]]) -> float:
    """Return the share of padding in the tokens that padded batches compute."""
    lengths = [[len(sample.input_ids) for sample in batch] for batch in batches]
    return 1 - sum(map(sum, lengths)) / sum(len(batch) * max(batch) for batch in lengths)


def _pixels(samples: Sequence[Sample], dtype: torch.dtype) -> Inputs:
    """Normalise all tiles (N, 3, H, W), outside the measured time; without tiles, leave the keyword out."""
    tiles = torch.from_numpy(np.concatenate([sample.tiles for sample in samples]))
    if not len(tiles):
        return {}
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return {"pixel_values": tiles.float().div_(255).sub_(mean).div_(std).to(dtype)}
