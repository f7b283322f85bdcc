"""Parameter groups for full tuning: each layer of the encoder learns more slowly than the one above it.

Source: authors' `mmcv_custom/layer_decay_optimizer_constructor.py` (from BEiT): embeddings rate * d^(L+1), layer i
(from 0) rate * d^(L-i), everything else the full rate. Vectors and biases do not decay; position embeddings and CLS do
not either, which the authors' code means but misses, as it compares the names without their prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from torch import nn

_LAYER = re.compile(r"(?:^|\.)encoder\.layer\.(\d+)\.")
_EMBEDDINGS = re.compile(r"(?:^|\.)embeddings\.")
_UNDECAYED = ("cls_token", "position_embeddings")


def rate_scale(name: str, num_layers: int, decay: float) -> float:
    """Return a parameter's rate over the full rate.

    Args:
        name: as in `named_parameters` of a module that holds a `VisionTower` and a head.
        num_layers: L.
        decay: d.
    """
    if _EMBEDDINGS.search(name):
        return float(decay ** (num_layers + 1))
    if layer := _LAYER.search(name):
        return float(decay ** (num_layers - int(layer[1])))
    return 1.0


def decayed_groups(
    parameters: Iterable[tuple[str, nn.Parameter]],
    num_layers: int,
    learning_rate: float,
    weight_decay: float,
    layer_decay: float,
) -> list[dict[str, Any]]:
    """Group the trainable parameters (any shape) by rate and weight decay, for AdamW.

    Returns:
        Groups with `params`, `lr`, `weight_decay` and `name`.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in parameters:
        if parameter.requires_grad:
            scale = rate_scale(name, num_layers, layer_decay)
            plain = parameter.dim() == 1 or name.endswith("bias") or name.endswith(_UNDECAYED)
            wd = 0.0 if plain else weight_decay
            new = {"params": [], "lr": scale * learning_rate, "weight_decay": wd, "name": f"{scale:.4g}/{wd:g}"}
            groups.setdefault((scale, wd), new)["params"].append(parameter)
    return list(groups.values())
