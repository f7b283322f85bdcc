"""What a source of weights says about its parts: config.json of any kind we read, or a run's config.yaml.

internvl_chat, intern_vit_6b, qwen2, internlm2, llama      the authors' format, whole or a part alone
internvl, internvl_vision                                  transformers' own
"internvl_lab" in config.json                              ours
<run>/config.yaml                                          of a checkpoint <run>/stages/*/checkpoints/step_*.ckpt
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from internvl_lab.checkpoints.base import base_of
from internvl_lab.checkpoints.configs import OUR_KEY, from_native_config, is_tied, parts_from_ours, vision_from_native
from internvl_lab.checkpoints.files import read_json
from internvl_lab.checkpoints.official import (
    LANGUAGE_TYPES,
    VISION_TYPE,
    WRONG_KIND,
    from_official_config,
    is_official,
    language_from_official,
    vision_from_official,
)
from internvl_lab.checkpoints.storage import CHECKPOINT_SUFFIX, PICKLE_FILE
from internvl_lab.checkpoints.tensors import CONFIG_FILE, WEIGHTS_FILE
from internvl_lab.config import LanguageConfig, ModelConfig, ProjectorConfig, VisionConfig
from internvl_lab.config.typed import from_mapping
from internvl_lab.constants import PARTS
from internvl_lab.errors import CheckpointError, ConfigError

RUN_CONFIG_FILE = "config.yaml"
WHOLE_FILES = (WEIGHTS_FILE, PICKLE_FILE)
"""Files that hold all weights of their folder; a file of another name stands for itself."""


@dataclass(frozen=True)
class Settings:
    """Hold what is known about a source; a part that it does not describe is None."""

    vision: VisionConfig | None = None
    projector: ProjectorConfig | None = None
    language: LanguageConfig | None = None
    image_token_id: int | None = None
    is_plain_language: bool = False
    """A language model published alone: the nine tokens are not in its vocabulary yet."""
    is_tied: bool = False
    """The output layer shares the embeddings' weights, and is therefore not stored."""

    @property
    def parts(self) -> tuple[str, ...]:
        """List the parts described."""
        return tuple(part for part in PARTS if getattr(self, part) is not None)

    def model_config(self) -> ModelConfig:
        """Build the settings of a whole model; a part not described gets the defaults."""
        return ModelConfig(
            self.vision or VisionConfig(), self.projector or ProjectorConfig(), self.language or LanguageConfig()
        )


def read_settings(path: Path) -> Settings:
    """Read what a folder or file of weights says about its parts; nothing known = no part described.

    Raises:
        CheckpointError: a configuration that is unreadable or describes another kind of model.
    """
    if path.suffix == CHECKPOINT_SUFFIX:
        run_config = read_run_config(path)
        return Settings() if run_config is None else _whole(run_model(run_config), None)
    folder = path.parent if path.name in WHOLE_FILES else base_of(path)
    return from_content(read_json(folder / CONFIG_FILE)) if (folder / CONFIG_FILE).is_file() else Settings()


def read_run_config(checkpoint: Path) -> dict[str, Any] | None:
    """Read the configuration of the run that wrote a checkpoint; None where the checkpoint stands alone.

    Raises:
        CheckpointError: the file is no mapping.
    """
    folders = checkpoint.absolute().parents
    file = folders[3] / RUN_CONFIG_FILE if len(folders) > 3 else checkpoint / RUN_CONFIG_FILE
    if not file.is_file():
        return None
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict) or "model" not in content:
        raise CheckpointError(f"{file} describes no run")
    return content


def run_model(run_config: Mapping[str, Any]) -> ModelConfig:
    """Return the model of a run's configuration.

    Raises:
        CheckpointError: an unknown or impossible setting.
    """
    try:
        return from_mapping(ModelConfig, run_config["model"], "model")
    except ConfigError as error:
        raise CheckpointError(f"{RUN_CONFIG_FILE}: {error}") from error


def from_content(content: Mapping[str, Any]) -> Settings:
    """Read the content of a config.json of any known kind.

    Raises:
        CheckpointError: another kind of model, a missing field, or a setting this model has no counterpart for.
    """
    kind, ours = content.get("model_type"), content.get(OUR_KEY, {})
    try:
        if is_official(content):
            config, image_token_id = from_official_config(content)
            tied = bool(content["llm_config"].get("tie_word_embeddings", False))
            return _whole(config, ours.get("image_token_id", image_token_id), tied)
        if kind == VISION_TYPE:
            return Settings(vision=vision_from_official(content))
        if kind == "internvl_vision":
            return Settings(vision=vision_from_native(content))
        if kind in LANGUAGE_TYPES:
            return Settings(
                language=language_from_official(content),
                image_token_id=ours.get("image_token_id"),
                is_plain_language="image_token_id" not in ours,
                is_tied=bool(content.get("tie_word_embeddings", False)),
            )
        if parts := parts_from_ours(ours):
            return Settings(**parts, image_token_id=ours.get("image_token_id"))
    except KeyError as error:
        raise CheckpointError(f"config.json lacks the field {error}") from error
    except WRONG_KIND as error:
        raise CheckpointError(f"config.json has a field of a wrong kind: {error}") from error
    config, image_token_id = from_native_config(content)
    return _whole(config, image_token_id, is_tied(content))


def _whole(config: ModelConfig, image_token_id: int | None, tied: bool = False) -> Settings:
    """Describe a whole model."""
    return Settings(config.vision, config.projector, config.language, image_token_id, is_tied=tied)
