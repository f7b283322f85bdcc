"""Compose `conf/` into a typed `RunConfig`: the one place of this room that knows Hydra.

overrides ──Hydra──> DictConfig ──resolve──> dict ──from_mapping──> RunConfig
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from internvl_lab.config.curation import CurateConfig, CurationConfig
from internvl_lab.config.model import ModelConfig
from internvl_lab.config.run import RunConfig
from internvl_lab.config.test_time import TestTimeConfig
from internvl_lab.config.typed import from_mapping
from internvl_lab.constants import PARTS
from internvl_lab.errors import ConfigError, InternVLLabError

CONFIG_DIR = Path(__file__).resolve().parents[3] / "conf"
_ROOTS: Mapping[str, type] = {"train": RunConfig, "curate": CurateConfig, "test_time": TestTimeConfig}
"""Root file to the class that types it."""
_NO_SUCH_KEY = re.compile(r"Could not override '([^']+)'")


def compose(overrides: Sequence[str] = (), config_dir: Path = CONFIG_DIR) -> RunConfig:
    """Compose the configuration that `python train.py OVERRIDES` would run.

    Args:
        overrides: Hydra overrides, for example `["experiment=quickstart", "seed=1"]`.
        config_dir: folder with `train.yaml`.
    Raises:
        ConfigError: an override or a file is wrong; the message names the key or the choice.
    """
    return typed_config(compose_raw(overrides, config_dir))


def compose_test_time(overrides: Sequence[str] = (), config_dir: Path = CONFIG_DIR) -> TestTimeConfig:
    """Compose the configuration that `python -m internvl_lab test-time OVERRIDES` runs.

    Raises:
        ConfigError: an override or a file is wrong, or a value is missing; the message names the key.
    """
    settings = _compose_values("test_time", overrides, config_dir)
    for name in ("checkpoint", "tasks"):
        settings[name] = [settings[name]] if isinstance(settings[name], str) else settings[name]
    return from_mapping(TestTimeConfig, settings)


def compose_curation(overrides: Sequence[str] = (), config_dir: Path = CONFIG_DIR) -> CurationConfig:
    """Compose what `python -m internvl_lab curate ... OVERRIDES` would reject.

    Raises:
        ConfigError: an override or a file is wrong; the message names the key or the choice.
    """
    return from_mapping(CurateConfig, _compose_values("curate", overrides, config_dir)).curation


def _compose_values(root: str, overrides: Sequence[str], config_dir: Path) -> dict[str, Any]:
    """Compose from another root than `train`, and resolve to plain containers without Hydra's own node."""
    try:
        raw = compose_raw(overrides, config_dir, root)
        own = OmegaConf.masked_copy(raw, [str(name) for name in raw if name != "hydra"])
        values = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error) or str(error)) from error
    assert isinstance(values, dict)
    return {str(name): value for name, value in values.items()}


def compose_raw(overrides: Sequence[str] = (), config_dir: Path = CONFIG_DIR, root: str = "train") -> DictConfig:
    """Compose without typing; the result still holds Hydra's own node.

    Args:
        overrides, config_dir: as in `compose`.
        root: the file to start from: `train`, `test_time` or `curate`.
    Raises:
        ConfigError: Hydra refuses an override; one line.
    """
    if not (config_dir / f"{root}.yaml").is_file():
        raise ConfigError(f"no {root}.yaml in {config_dir}: run from a clone of the repository")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir), version_base="1.3"):
            return hydra_compose(root, list(overrides), return_hydra_config=True)
    except Exception as error:
        line = explain(error, overrides, config_dir, _ROOTS[root])
        if line is None:
            raise
        raise ConfigError(line) from error


def typed_config(raw: DictConfig) -> RunConfig:
    """Resolve and type a composed configuration.

    Args:
        raw: what Hydra composed; with its `hydra` node, or under `hydra.main`, where the global one serves.
    Raises:
        ConfigError: unknown key, wrong type, impossible value or combination.
    """
    hydra_node = raw.get("hydra") if "hydra" in raw else HydraConfig.get()
    choices = hydra_node.runtime.choices if hydra_node is not None else {}
    config = from_mapping(RunConfig, {"experiment": str(choices.get("experiment", "none")), **plain(raw)})
    config.check_fit()
    return config


def plain(raw: DictConfig) -> dict[str, Any]:
    """Resolve interpolations and return plain containers, with `init_from=DIR` spread over the parts.

    Raises:
        ConfigError: an interpolation does not resolve, a mandatory value is missing, or the model is impossible.
    """
    try:
        without_hydra = OmegaConf.masked_copy(raw, [str(k) for k in raw if k != "hydra"])
        values = OmegaConf.to_container(without_hydra, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error) or str(error)) from error
    assert isinstance(values, dict)
    settings: dict[str, Any] = {str(k): v for k, v in values.items()}
    if isinstance(settings.get("init_from"), str):
        settings["init_from"] = dict.fromkeys(PARTS, settings["init_from"])
    for group in ("model", "tiling"):
        if not isinstance(settings.get(group), Mapping):
            raise ConfigError(f"{group}={settings.get(group)!r} must be a group of keys")
    # derived here, so that the value has one home: the model
    model = from_mapping(ModelConfig, settings["model"], "model")
    settings["tiling"]["num_visual_tokens"] = model.num_visual_tokens
    return settings


def explain(
    error: Exception, overrides: Sequence[str] = (), config_dir: Path = CONFIG_DIR, root: type = RunConfig
) -> str | None:
    """Return one line for a person: the key or choice that is wrong, and what there is instead.

    Args:
        error: what Hydra, OmegaConf or this package raised.
        overrides: the command line; some of Hydra's messages do not say which override they mean.
        config_dir: folder of the choices.
        root: class of the whole configuration, for the names of its keys.

    Returns:
        None for any other error: a fault of the program, whose traceback matters.
    """
    if isinstance(error, InternVLLabError):
        return " ".join(str(error).split("\n"))
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing_choice(str(error.missing_cfg_file), config_dir, error.options or ())
    if isinstance(error, OverrideParseException):
        lines = [line for line in _lines(error) if not line.startswith("Error parsing")]
        return f"cannot read {error.override!r}: {'; '.join(lines)}"
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be"):
        return _not_a_choice(overrides, config_dir) or _lines(error)[0]
    if match := _NO_SUCH_KEY.match(str(error)):
        return _unknown_key(match[1], root)
    if isinstance(error, OmegaConfBaseException):
        return _with_key(error)
    if isinstance(error, HydraException):
        cause = error.__cause__
        detail = [_with_key(cause)] if isinstance(cause, OmegaConfBaseException) else []
        return "; ".join([*_lines(error), *detail])
    return None


def _lines(error: Exception) -> list[str]:
    """Split a message, without links to Hydra's manual, which is another version's."""
    lines = [line.strip() for line in str(error).splitlines()]
    return [line for line in lines if line and not line.startswith("See http")] or [type(error).__name__]


def _with_key(error: OmegaConfBaseException) -> str:
    text, key = _lines(error)[0], getattr(error, "full_key", None)
    return f"{key}: {text}" if key and str(key) not in text else text


def _missing_choice(choice: str, config_dir: Path, options: Sequence[str]) -> str:
    """Name a choice that does not exist and list those of the nearest group that does."""
    group = Path(choice).parent
    while not options and group != Path():
        files = sorted((config_dir / group).rglob("*.yaml"))
        options = [file.relative_to(config_dir / group).with_suffix("").as_posix() for file in files]
        group = group if options else group.parent
    return f"unknown choice {choice!r}; choices in {group.as_posix()}: {', '.join(options) or 'none'}"


def _not_a_choice(overrides: Sequence[str] = (), config_dir: Path = CONFIG_DIR) -> str | None:
    """Find the override that gives a group a number, a switch or a mapping (`stage=1`)."""
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        group = override.key_or_group
        if (config_dir / group).is_dir() and not isinstance(override.value(), (str, list)):
            return _missing_choice(f"{group}/{override.get_value_element_as_str()}", config_dir, ())
    return None


def _unknown_key(key: str, root: type) -> str:
    """Name a key that does not exist and list its neighbours, where the group is typed."""
    nested: Any = None
    for name in reversed(key.split(".")):
        nested = {name: nested}
    try:
        from_mapping(root, nested)
    except ConfigError as error:
        if str(error).startswith("unknown key"):
            return str(error)
    return f"unknown key {key!r}; to add it: +{key}=..."
