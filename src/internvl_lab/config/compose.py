"""Compose `conf/` into a typed `RunConfig`: the one place of this room that knows Hydra.

overrides ──Hydra──> DictConfig ──resolve──> dict ──from_mapping──> RunConfig
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from internvl_lab.config.run import RunConfig
from internvl_lab.config.typed import from_mapping
from internvl_lab.constants import PARTS
from internvl_lab.errors import ConfigError

CONFIG_DIR = Path(__file__).resolve().parents[3] / "conf"


def compose(overrides: Sequence[str] = (), config_dir: Path = CONFIG_DIR) -> RunConfig:
    """Compose the configuration that `python train.py OVERRIDES` would run.

    Args:
        overrides: Hydra overrides, for example `["experiment=quickstart", "seed=1"]`.
        config_dir: folder with `train.yaml`.
    Raises:
        ConfigError: an override or a file is wrong; the message names the key or the choice.
    """
    return typed_config(compose_raw(overrides, config_dir))


def compose_raw(overrides: Sequence[str] = (), config_dir: Path = CONFIG_DIR) -> DictConfig:
    """Compose without typing; the result still holds Hydra's own node.

    Raises:
        ConfigError: Hydra refuses an override.
    """
    if not (config_dir / "train.yaml").is_file():
        raise ConfigError(f"no train.yaml in {config_dir}: run from a clone of the repository")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir), version_base="1.3"):
            return hydra_compose("train", list(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(str(error)) from error


def typed_config(raw: DictConfig) -> RunConfig:
    """Resolve and type a composed configuration.

    Args:
        raw: what Hydra composed; with its `hydra` node, or under `hydra.main`, where the global one serves.
    Raises:
        ConfigError: unknown key, wrong type, impossible value or combination.
    """
    hydra_node = raw.get("hydra") if "hydra" in raw else HydraConfig.get()
    choices = hydra_node.runtime.choices if hydra_node is not None else {}
    return from_mapping(RunConfig, {"experiment": str(choices.get("experiment", "none")), **plain(raw)})


def plain(raw: DictConfig) -> dict[str, Any]:
    """Resolve interpolations and return plain containers, with `init_from=DIR` spread over the parts.

    Raises:
        ConfigError: an interpolation does not resolve or a mandatory value is missing.
    """
    try:
        without_hydra = OmegaConf.masked_copy(raw, [str(k) for k in raw if k != "hydra"])
        values = OmegaConf.to_container(without_hydra, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    assert isinstance(values, dict)
    settings: dict[str, Any] = {str(k): v for k, v in values.items()}
    if isinstance(settings.get("init_from"), str):
        settings["init_from"] = dict.fromkeys(PARTS, settings["init_from"])
    settings["tiling"]["num_visual_tokens"] = _visual_tokens(settings["model"])
    return settings


def _visual_tokens(model: dict[str, Any]) -> int:
    """Derive the visual tokens of a tile from the model, so that the value has one home."""
    vision = model["vision"]
    edge = vision["image_size"] // vision["patch_size"] * float(model["projector"]["downsample_ratio"])
    return int(edge) ** 2
