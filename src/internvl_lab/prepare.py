"""What must be there before a model is built: launcher, weights, shards, tokenizer, and a name for the run."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_only

from internvl_lab.checkpoints import resolve_source
from internvl_lab.checkpoints.storage import CHECKPOINT_SUFFIX
from internvl_lab.checkpoints.tensors import recorded_sha256, weight_files
from internvl_lab.config import ModelConfig, RunConfig, SourceConfig
from internvl_lab.config.data import VAL_MIXTURE
from internvl_lab.constants import PARTS
from internvl_lab.data.miniworld import ensure_shards, miniworld_root
from internvl_lab.data.remote import is_remote
from internvl_lab.errors import ConfigError, MissingWeightsError
from internvl_lab.models import check_tiles, resolve
from internvl_lab.text import ChatTemplate, load_tokenizer
from internvl_lab.tracking import config_hash
from internvl_lab.training import FSDP2, fsdp2_strategy, slurm_plugins

log = logging.getLogger(__name__)

MINIWORLD_PREFIX = "miniworld:"

SLURM_LAUNCHERS = ("submitit_cluster", "submitit_slurm")
"""Hydra launchers that start a task a rank: ours, and the plugin's own (its `submitit_local` starts a task a trial)."""

OWN_TRAINER_KEYS = ("num_threads", "compile_backend")
"""Keys of the `trainer` group that are ours, not Lightning's."""


def rank_of_process() -> int:
    """Return 0 for the process that prepares, writes and evaluates, another number for all others."""
    rank = int(getattr(rank_zero_only, "rank", 0) or 0)  # as Lightning reads it from the launcher
    return rank or int(os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", "0")))


def refuse_multirun_launcher(trainer: Mapping[str, Any], multirun: bool, launcher: str = "basic") -> None:
    """Refuse Lightning's own multi-process launcher under Hydra multirun.

    Args:
        trainer: the `trainer` group.
        multirun: whether Hydra sweeps.
        launcher: Hydra's launcher; on SLURM every rank is a task already, so Lightning launches none.
    Raises:
        ConfigError: each rank above 0 would run the whole sweep again (measured, DESIGN 3.10).
    """
    if multirun and world_size_of(trainer) > 1 and launcher not in SLURM_LAUNCHERS:
        raise ConfigError(
            f"-m with trainer.strategy={trainer.get('strategy')} and trainer.devices={trainer.get('devices')}: "
            "Lightning's launcher would run the whole sweep again on every rank; use one process a trial "
            "(trainer.devices=1), hydra/launcher=submitit_cluster on SLURM, or an experiment with a sweep, which runs "
            "each row as its own process group"
        )


def world_size_of(options: Mapping[str, Any]) -> int:
    """Count the processes Lightning will start; `auto` devices are those of the machine."""
    devices: Any = options.get("devices", 1)
    if devices in ("auto", -1, "-1"):
        devices = max(1, torch.cuda.device_count()) if options.get("accelerator") != "cpu" else 1
    elif isinstance(devices, Sequence) and not isinstance(devices, str):
        devices = len(devices)
    return int(devices) * int(options.get("num_nodes", 1))


def build_trainer(options: Mapping[str, Any], **fixed: Any) -> L.Trainer:
    """Build Lightning's Trainer from the `trainer` group and what a stage fixes.

    Raises:
        ConfigError: Lightning refuses an option, or this machine lacks the device.
    """
    chosen = {key: value for key, value in options.items() if key not in OWN_TRAINER_KEYS}
    chosen.setdefault("plugins", slurm_plugins())
    if chosen.get("strategy") == FSDP2:
        chosen["strategy"] = fsdp2_strategy(world_size_of(options))
    try:
        return L.Trainer(**{**chosen, **fixed})
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error


def check_trainer(options: Mapping[str, Any]) -> None:
    """Let Lightning judge the `trainer` group before anything else is done.

    Raises:
        ConfigError: see `build_trainer`.
    """
    build_trainer(options, logger=False, enable_checkpointing=False, enable_progress_bar=False)


def device_of(model: ModelConfig, options: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the type of device that these `trainer` options choose here, and whether it computes in half precision."""
    device = str(options.get("accelerator", "auto"))
    if device in ("auto", "gpu", "cuda"):
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return device, model.dtype == "bfloat16" or str(options.get("precision", "")).startswith(("bf16", "16"))


def check_attention(model: ModelConfig, options: Mapping[str, Any]) -> None:
    """Refuse attention backends that cannot run with these `trainer` options on this machine.

    Raises:
        ConfigError: one sentence with what to install or to choose.
    """
    device, half = device_of(model, options)
    resolve(model.attention, device, half)
    check_tiles(model.vision_attention, device, half)


def run_hash(config: RunConfig, settings: Mapping[str, Any]) -> str:
    """Name a run: hash what decides its result, the content of its initial weights included.

    Args:
        config: typed configuration.
        settings: the same as plain containers.
    """
    weights = {part: _fingerprint(config.init_from.part(part)) for part in PARTS}
    return config_hash({**settings, "init_from": weights})


def _fingerprint(source: str | None) -> str | None:
    """Return what identifies weights without reading them all: their recorded hash, or names and sizes of the files."""
    if source is None:
        return None
    try:
        folder = resolve_source(source)
    except MissingWeightsError:
        return source
    if recorded := recorded_sha256(folder):
        return recorded
    files = [(path.name, path.stat()) for path in weight_files(folder)]
    # checkpoints of two runs have the same names and sizes, so there the time counts too
    is_checkpoint = folder.suffix == CHECKPOINT_SUFFIX
    return repr([(name, stat.st_size, *([stat.st_mtime_ns] if is_checkpoint else [])) for name, stat in files])


def sources_of(config: RunConfig) -> list[Path]:
    """List the folders and files outside the package that a run starts from."""
    named = [config.init_from.part(part) for part in PARTS] + [config.ckpt_path]
    return [Path(name) for name in named if name is not None and not name.startswith("asset:")]


def build_template(config: RunConfig) -> ChatTemplate:
    """Load the tokenizer and bind it to the run's system turn.

    Raises:
        MissingWeightsError: no tokenizer is named and none lies beside the language weights.
    """
    source = config.model.language.tokenizer
    if source is None and config.init_from.language is not None:
        source = str(resolve_source(config.init_from.language))
    if source is None:
        raise MissingWeightsError(
            f"language model {config.model.language.name} has no tokenizer: set model.language.tokenizer=DIR"
        )
    return ChatTemplate(load_tokenizer(source), config.data.system_message)


def with_shards(config: RunConfig) -> RunConfig:
    """Generate miniworld where the configuration wants it, and put real folders in the place of `miniworld:SPLIT`.

    Ranks may call this at once: the first generates, the others wait for its lock. A held-out mixture without shards
    is left out here, before training, and said so.

    Raises:
        ConfigError: a mixture names miniworld and `data.miniworld` is null, or names an unknown split.
    """
    settings = config.data.miniworld
    folders: dict[str, Path] = {}
    if settings is not None:
        folders = ensure_shards(settings, miniworld_root(settings, config.paths.data_dir))
        if "finetune" in folders and (settings.loop_share or settings.filtered):
            from internvl_lab.curation.looped import ensure_looped  # importing curation takes 0.2 s

            folders["finetune"] = ensure_looped(folders["finetune"], settings)
    used = {stage.mixture for stage in config.stages.values()} | {VAL_MIXTURE}
    mixtures = {
        name: {source: _located(value, folders) for source, value in sources.items()}
        for name, sources in config.data.mixtures.items()
        if name in used
    }
    held_out = [source.shards for source in mixtures.get(VAL_MIXTURE, {}).values()]
    absent = [s for s in held_out if not (is_remote(s) or s.endswith(".tar") or Path(s).is_dir())]
    if absent:
        log.warning("no held-out shards in %s: this run has no validation loss and no scores", ", ".join(absent))
        del mixtures[VAL_MIXTURE]
    return replace(config, data=replace(config.data, mixtures=mixtures))


def _located(source: SourceConfig, folders: Mapping[str, Path]) -> SourceConfig:
    if not source.shards.startswith(MINIWORLD_PREFIX):
        return source
    split = source.shards.removeprefix(MINIWORLD_PREFIX)
    if split not in folders:
        raise ConfigError(f"data.mixtures: {source.shards} needs data.miniworld with samples in split {split!r}")
    return replace(source, shards=str(folders[split]))
