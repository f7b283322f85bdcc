"""Weights in and out: native and the authors' format, sources of a run, hand-over between stages."""

from internvl_lab.checkpoints.adapters import copy_adapter
from internvl_lab.checkpoints.convert import convert, export_adapter
from internvl_lab.checkpoints.handoff import (
    last_stage_weights,
    stage_dir,
    stage_done,
    stage_provenance,
    stage_weights,
    write_stage,
)
from internvl_lab.checkpoints.init_from import check_sources, initialise, locate, resolve_source
from internvl_lab.checkpoints.native import load_model, load_official, load_part, read_config, save_model, save_part
from internvl_lab.checkpoints.processor import load_processor, save_processor

__all__ = [
    "check_sources",
    "convert",
    "copy_adapter",
    "export_adapter",
    "initialise",
    "last_stage_weights",
    "load_model",
    "load_official",
    "load_part",
    "load_processor",
    "locate",
    "read_config",
    "resolve_source",
    "save_model",
    "save_part",
    "save_processor",
    "stage_dir",
    "stage_done",
    "stage_provenance",
    "stage_weights",
    "write_stage",
]
