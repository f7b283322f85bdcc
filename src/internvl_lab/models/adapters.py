"""LoRA: low-rank adapters beside the linear layers of frozen parts, by peft.

    y = W x + scaling * B A dropout(x)        W (out, in) frozen, A (rank, in), B (out, rank), B starts at zero

peft puts its layers into our model in place: `q_proj` becomes `q_proj.base_layer`, `q_proj.lora_A.default` and
`q_proj.lora_B.default`. Which layers: spec section 3, the authors' `modeling_internvl_chat.py` (their fused qkv is
q, k and v here, which gives each its own A).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from internvl_lab.config import LoraConfig

if TYPE_CHECKING:
    import peft

    from internvl_lab.models.internvl import InternVL

ADAPTER_NAME = "default"
"""What peft calls the only adapter of a model."""
LORA_MARK = ".lora_"
BASE_MARK = ".base_layer"

_TARGETS = {
    "vision": ("vision_tower", ("q_proj", "k_proj", "v_proj", "projection_layer", "fc1", "fc2")),
    "language": (
        "language_model",
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    ),
}
"""Part to its module and the linear layers in it that get an adapter."""


def target_pattern(parts: Collection[str]) -> str:
    """Return the pattern of the adapted layers' full names, in our model and in transformers' (`model.` in front)."""
    towers = (_TARGETS[part] for part in sorted(parts))
    return r"(?:model\.)?(?:" + "|".join(rf"{tower}\..*\.(?:{'|'.join(names)})" for tower, names in towers) + ")"


def peft_config(lora: LoraConfig) -> peft.LoraConfig:
    """Translate our settings into peft's."""
    import peft

    return peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.scaling * lora.rank,  # type: ignore[arg-type]  # peft divides it by the rank again
        lora_dropout=lora.dropout,
        target_modules=target_pattern(lora.parts),
    )


def add_adapters(model: InternVL, lora: LoraConfig) -> None:
    """Put adapters into the parts that `lora` names, random A and zero B; the model's outputs stay what they were.

    Does nothing where no part is named, or where the adapters are there already.
    """
    if not lora.parts or any(is_adapter(name) for name, _ in model.named_parameters()):
        return
    import peft

    peft.inject_adapter_in_model(peft_config(lora), model, adapter_name=ADAPTER_NAME)


def is_adapter(name: str) -> bool:
    """Say whether a parameter's name is that of an adapter's A or B."""
    return LORA_MARK in name


def add_low_rank(weight: Tensor, a: Tensor, b: Tensor, scaling: float) -> Tensor:
    """Return W + scaling * B A, computed in fp32: (out, in) in the dtype of W, from (rank, in) and (out, rank)."""
    return (weight.float() + scaling * (b.float() @ a.float())).to(weight.dtype)


@torch.no_grad()
def merged_weights(model: InternVL) -> Iterator[tuple[str, Tensor]]:
    """Yield (name as without adapters, weight of any shape) with adapters added; the model stays as it is.

    A sharded tensor is gathered, one at a time: all ranks must run through all names.
    """
    modules = dict(model.named_modules())
    for name, tensor in model.state_dict().items():
        if is_adapter(name):
            continue
        owner, mark, leaf = name.partition(BASE_MARK)
        weight = whole(tensor)
        if mark and leaf == ".weight":
            layer = modules[owner]
            a, b = (whole(side[ADAPTER_NAME].weight) for side in (layer.lora_A, layer.lora_B))
            weight = add_low_rank(weight, a, b, layer.scaling[ADAPTER_NAME])
        yield owner + leaf, weight


def gather_weights(model: InternVL, keep: bool = True) -> dict[str, Tensor]:
    """Return the merged weights in host memory by name, of any shape; empty on ranks that only help to gather."""
    gathered = {}
    for name, weight in merged_weights(model):
        if keep:
            gathered[name] = weight.detach().cpu()
    return gathered


def whole(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor of any shape, which all ranks must do together; others come back as they are."""
    gather: Callable[[], Tensor] | None = getattr(tensor, "full_tensor", None)  # a DTensor's
    return tensor if gather is None else gather()
