"""Refuse impossible values; every message names the full key.

Ranges serve the dataclasses of this room. `check_trainer` and `check_logger` look into the groups
that stay open mappings, because any argument of `lightning.Trainer` may be added to one (`+trainer.x=1`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from internvl_lab.errors import ConfigError

PRECISIONS = (
    "32-true",
    "16-mixed",
    "16-true",
    "bf16-mixed",
    "bf16-true",
    "64-true",
    "transformer-engine",
    "transformer-engine-float16",
)
"""Lightning's canonical names; its older aliases (`32`, `bf16`) would give one run two configuration hashes."""

STAGE_KEYS = {
    "max_steps": "max_steps_per_stage",
    "max_epochs": "max_steps_per_stage",
    "accumulate_grad_batches": "packing.packs_per_step",
    "gradient_clip_val": "optimizer.max_grad_norm",
    "enable_progress_bar": "callbacks.progress_bar",
    "enable_model_summary": "callbacks.model_summary",
    "enable_checkpointing": "stage.checkpoint_every",
    "default_root_dir": "paths.output_dir",
    "logger": "the group logger",
    "callbacks": "the group callbacks",
}
"""Arguments of `lightning.Trainer` that a stage sets itself, and what to use instead."""

LOGGERS = ("wandb",)
WANDB_KEYS = ("mode", "project", "entity", "name", "group", "job_type", "tags")


def at_least(owner: object, prefix: str, minimum: float, *names: str) -> None:
    """Refuse fields of `owner` below `minimum` or not finite; None passes.

    Raises:
        ConfigError: names `prefix.name`.
    """
    for name in names:
        value = getattr(owner, name)
        if value is not None and not minimum <= value < math.inf:
            raise ConfigError(f"{_join(prefix, name)}={value} must be at least {minimum}")


def above_zero(owner: object, prefix: str, *names: str) -> None:
    """Refuse fields of `owner` that are not positive and finite; None passes.

    Raises:
        ConfigError: names `prefix.name`.
    """
    for name in names:
        value = getattr(owner, name)
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{_join(prefix, name)}={value} must be above 0")


def share(owner: object, prefix: str, *names: str, below_one: bool = False) -> None:
    """Refuse fields of `owner` outside [0, 1], or outside [0, 1) with `below_one`; None passes.

    Raises:
        ConfigError: names `prefix.name`.
    """
    for name in names:
        value = getattr(owner, name)
        if value is not None and not (0 <= value <= 1 and not (below_one and value == 1)):
            raise ConfigError(f"{_join(prefix, name)}={value} must lie in [0, 1{')' if below_one else ']'}")


def check_trainer(trainer: Mapping[str, Any]) -> None:
    """Check the values of the `trainer` group that this project knows; others are Lightning's to judge.

    Raises:
        ConfigError: a value is impossible, or a key belongs to the stage.
    """
    for key, instead in STAGE_KEYS.items():
        if key in trainer:
            raise ConfigError(f"trainer.{key} is set by every stage; use {instead}")
    precision = trainer.get("precision", PRECISIONS[0])
    if precision not in PRECISIONS:
        raise ConfigError(f"trainer.precision={precision!r} must be one of {', '.join(PRECISIONS)}")
    if not _devices_fit(trainer.get("devices", "auto")):
        raise ConfigError(f"trainer.devices={trainer['devices']!r} must be auto, a count above 0 or a list of devices")
    for key in ("num_nodes", "num_threads"):
        if not (_is_count(value := trainer.get(key, 1), 1) or (value is None and key == "num_threads")):
            raise ConfigError(f"trainer.{key}={value!r} must be a count above 0")

    backend = trainer.get("compile_backend")
    if not (backend is None or isinstance(backend, str)):
        raise ConfigError(f"trainer.compile_backend={backend!r} must be null or a backend of torch.compile (inductor)")


def _is_count(value: Any, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def _devices_fit(devices: Any) -> bool:
    if isinstance(devices, (list, tuple)):
        return bool(devices) and all(_is_count(device, 0) for device in devices)
    return devices == "auto" or _is_count(devices, 1)


def check_logger(logger: Mapping[str, Any]) -> None:
    """Check the `logger` group: `wandb` is null or a group of known keys.

    Raises:
        ConfigError: unknown key or wrong type.
    """
    _only_known(logger, "logger", LOGGERS)
    wandb = logger.get("wandb")
    if wandb is None:
        return
    if not isinstance(wandb, Mapping):
        raise ConfigError(f"logger.wandb={wandb!r} must be null or a group of {', '.join(WANDB_KEYS)}")
    _only_known(wandb, "logger.wandb", WANDB_KEYS)
    tags = wandb.get("tags", ())
    if not isinstance(tags, (list, tuple)):
        raise ConfigError(f"logger.wandb.tags={tags!r} must be a list")


def _only_known(values: Mapping[str, Any], prefix: str, known: Collection[str]) -> None:
    for name in values:
        if name not in known:
            raise ConfigError(f"unknown key {_join(prefix, str(name))!r}; known here: {', '.join(known)}")


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
