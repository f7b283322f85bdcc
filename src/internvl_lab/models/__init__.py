"""The model: plain torch and transformers, no Lightning, no Hydra, no data."""

from internvl_lab.models.adapters import (
    BASE_MARK,
    add_adapters,
    add_low_rank,
    gather_weights,
    is_adapter,
    peft_config,
    whole,
)
from internvl_lab.models.attention import BACKENDS, TILE_BACKENDS, Backend, check_tiles, resolve
from internvl_lab.models.compiling import compile_layers
from internvl_lab.models.devices import DEVICES, Device, find_device
from internvl_lab.models.flops import FLOP_PARTS, flops_by_part, pack_cost, step_flops
from internvl_lab.models.internvl import PART_OF_MODULE, InternVL, part_of
from internvl_lab.models.language import build_language
from internvl_lab.models.loss_head import TokenLosses
from internvl_lab.models.projector import build_projector, pixel_unshuffle
from internvl_lab.models.sizes import build_on_meta, count_parameters
from internvl_lab.models.vision import build_vision, set_drop_path

__all__ = [
    "BACKENDS",
    "BASE_MARK",
    "DEVICES",
    "FLOP_PARTS",
    "PART_OF_MODULE",
    "TILE_BACKENDS",
    "Backend",
    "Device",
    "InternVL",
    "TokenLosses",
    "add_adapters",
    "add_low_rank",
    "build_language",
    "build_on_meta",
    "build_projector",
    "build_vision",
    "check_tiles",
    "compile_layers",
    "count_parameters",
    "find_device",
    "flops_by_part",
    "gather_weights",
    "is_adapter",
    "pack_cost",
    "part_of",
    "peft_config",
    "pixel_unshuffle",
    "resolve",
    "set_drop_path",
    "step_flops",
    "whole",
]
