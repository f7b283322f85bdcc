"""What others run: transformers' `InternVLForConditionalGeneration` on padded batches, and on packs.

Every choice that could go either way goes the peer's way: tiles arrive as normalised floats (ours normalises uint8
inside the step), no KV cache is built, and gradients accumulate to as many optimizer steps as ours takes.

A peer is built without storage and takes the very Parameter objects of our model. So all variants fit into memory
together with one set of gradients and AdamW moments, however large the model, and can be measured in turns, which
building one after the other would not allow: on a GPU whose clock drifts, only neighbours in time compare.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.models.internvl.configuration_internvl import InternVLConfig
from transformers.models.internvl.modeling_internvl import InternVLForConditionalGeneration

from internvl_lab.checkpoints.configs import to_native_config
from internvl_lab.checkpoints.tensors import native_name
from internvl_lab.config import LoraConfig
from internvl_lab.constants import IGNORE_INDEX, IMAGENET_MEAN, IMAGENET_STD
from internvl_lab.data.encoding import Sample
from internvl_lab.errors import InternVLLabError
from internvl_lab.models import InternVL, add_adapters
from internvl_lab.models.attention import PACKED_ATTENTION, Backend

Inputs = dict[str, Any]
"""Keywords of the peer's forward."""

_PAD_ID = 0


def build_peer(
    model: InternVL, our_attention: bool = False, lora: LoraConfig | None = None
) -> InternVLForConditionalGeneration:
    """Build transformers' model around our parameters, in train mode.

    Args:
        model: gives sizes and parameters, which both models hold from now on.
        our_attention: attend inside samples and tiles with our functions; else with transformers' own SDPA.
        lora: the adapters that are in `model`.
    Raises:
        InternVLLabError: the parameters of both models do not match one to one.
    """
    config = InternVLConfig.from_dict(to_native_config(model, model.config.dtype))
    ours = {"text_config": PACKED_ATTENTION, "vision_config": model.vision_tower.config._attn_implementation}
    with torch.device("meta"):
        peer = InternVLForConditionalGeneration._from_config(
            config, dtype=model.dtype, attn_implementation=ours if our_attention else "sdpa"
        )
        if lora is not None:
            add_adapters(peer, lora)
    _share_parameters(model, peer)
    # its tables are buffers that no checkpoint holds
    peer.model.language_model.rotary_emb = model.language_model.rotary_emb
    if any(tensor.is_meta for tensor in itertools.chain(peer.parameters(), peer.buffers())):
        raise InternVLLabError("transformers' model has tensors that ours lacks: nothing to compare")
    return peer.train()  # type: ignore[no-any-return]


def _share_parameters(model: InternVL, peer: InternVLForConditionalGeneration) -> None:
    """Put the model's Parameter objects, of any shape, in the place of the peer's."""
    shared = {native_name(name): parameter for name, parameter in model.named_parameters()}
    wanted = {name: parameter.shape for name, parameter in peer.named_parameters()}
    if wanted != {name: parameter.shape for name, parameter in shared.items()}:
        raise InternVLLabError("transformers' parameters differ from ours: nothing to compare")
    for name, parameter in shared.items():
        owner, _, leaf = name.rpartition(".")
        setattr(peer.get_submodule(owner), leaf, parameter)


def set_recompute(peer: InternVLForConditionalGeneration, recompute: bool) -> None:
    """Checkpoint the activations of all layers, or of none."""
    if recompute:
        peer.activation_checkpointing_enable({"use_reentrant": False})
    else:
        peer.activation_checkpointing_disable()


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


def recipe_inputs(backend: Backend, device: torch.device, samples: Sequence[Sample], dtype: torch.dtype) -> Inputs:
    """Join samples to one row (1, T) and add their boundaries, for a peer with our attention.

    Args:
        backend: our packed attention.
        device: where it runs.
        samples, dtype: as in `packed_inputs`.
    """
    lengths = [len(sample.input_ids) for sample in samples]
    boundaries = torch.tensor([0, *lengths], device=device).cumsum(0).int()
    return {**packed_inputs(samples, dtype), **backend.lay_out(boundaries, max(lengths))}


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


def _pixels(samples: Sequence[Sample], dtype: torch.dtype) -> dict[str, Tensor]:
    """Normalise all tiles (N, 3, H, W), outside the measured time; without tiles, leave the keyword out."""
    tiles = torch.from_numpy(np.concatenate([sample.tiles for sample in samples]))
    if not len(tiles):
        return {}
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return {"pixel_values": tiles.float().div_(255).sub_(mean).div_(std).to(dtype)}
