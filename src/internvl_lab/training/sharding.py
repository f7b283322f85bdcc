"""FSDP2: shard weights, gradients and optimizer state over ranks, by torch's `fully_shard`.

One unit a layer of the encoder and of the language model; embeddings, norms, projector and head are the root's unit,
which stays gathered from the forward pass to the backward pass, because the head runs outside `InternVL.forward`.
"""

from __future__ import annotations

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from internvl_lab.models import InternVL

FSDP2 = "fsdp2"
"""Value of `trainer.strategy`; Lightning has no name of its own for it."""


def fsdp2_strategy(world_size: int) -> ModelParallelStrategy:
    """Build Lightning's strategy for FSDP2 over all ranks, without tensor parallelism."""
    return ModelParallelStrategy(data_parallel_size=world_size, tensor_parallel_size=1)


def shard(model: InternVL, mesh: DeviceMesh, precision: str) -> None:
    """Shard a model whose trainable parts are chosen and whose adapters are in place; a second call does nothing.

    Args:
        model: with full weights on any device, or with shapes only (see `materialise`).
        mesh: one-dimensional, over the ranks.
        precision: `trainer.precision`; under `bf16-mixed` weights are gathered in bf16 and gradients summed in fp32.
    """
    if isinstance(model, FSDPModule):
        return
    mixed = precision == "bf16-mixed"
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if mixed else MixedPrecisionPolicy()
    for layer in [*model.vision_tower.encoder.layer, *model.language_model.layers]:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
