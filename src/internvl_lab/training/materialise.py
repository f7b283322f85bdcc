"""Give a model that FSDP2 has sharded its weights, without the whole model ever being in one place.

    meta device: shapes only ── shard ──> shards without storage ── materialise ──> empty ──> filled
                                                            files, one tensor at a time ─┘

Built whole on every rank, 78B would take 8 x 157 GB of host memory on a node of eight; here a rank holds its shard
and one tensor. Parts that have no source are drawn module by module, as a plain build draws them, so that the
weights are the same to the bit; that takes one module's size in host memory, until its shard is copied.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from internvl_lab.checkpoints import initialise
from internvl_lab.checkpoints.tensors import copy_into, copy_tensor, native_name
from internvl_lab.config import InitConfig
from internvl_lab.constants import PARTS
from internvl_lab.models import PART_OF_MODULE, InternVL, is_adapter
from internvl_lab.models.internvl import build_modules


def is_empty(model: InternVL) -> bool:
    """Say whether a model has shapes only."""
    return any(parameter.is_meta for parameter in model.parameters())


def materialise(model: InternVL, device: torch.device, init: InitConfig, seed: int) -> dict[str, dict[str, Any]]:
    """Allocate this rank's shards on the device and fill them.

    Args:
        model: on the meta device; adapters in place, sharded or not.
        device: of this rank.
        init: source of each part.
        seed: of parts without a source, and of adapters.
    Returns:
        Part to {"source", "sha256"}, as `initialise` does.
    Raises:
        MissingWeightsError, CheckpointError: as `initialise` does.
    """
    model.to_empty(device=device)
    rotary: Any = model.language_model.rotary_emb  # its tables are computed, and no checkpoint holds them
    model.language_model.rotary_emb = type(rotary)(rotary.config).to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = tuple(part for part in PARTS if init.part(part) is None)
        copy_into(model, _draw(model, drawn), drawn, "random weights")
        _draw_adapters(model)
    return initialise(model, init)


def _draw(model: InternVL, parts: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    """Yield (native key, random tensor of any shape) of the given parts."""
    if not parts:
        return
    last = [name for name, part in PART_OF_MODULE.items() if part in parts][-1]
    for name, module in build_modules(model.config):  # the others too: they draw from the same generator
        if PART_OF_MODULE[name] in parts:
            for key, tensor in module.state_dict().items():
                yield native_name(f"{name}.{key}"), tensor
        if name == last:
            return


@torch.no_grad()
def _draw_adapters(model: InternVL) -> None:
    """Draw A as peft does and leave B zero, so that adapters change nothing at first."""
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            whole = torch.zeros(parameter.shape, dtype=parameter.dtype)
            if ".lora_A." in name:
                nn.init.kaiming_uniform_(whole, a=math.sqrt(5))
            copy_tensor(parameter, whole)
