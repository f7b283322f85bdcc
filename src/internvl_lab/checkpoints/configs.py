"""Translate model settings between our dataclasses and the config.json of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from transformers.models.internvl.configuration_internvl import InternVLConfig, InternVLVisionConfig

from internvl_lab.checkpoints.official import WRONG_KIND, refuse_others
from internvl_lab.config import LanguageConfig, ModelConfig, ProjectorConfig, VisionConfig
from internvl_lab.config.model import LAYER_SIZES
from internvl_lab.errors import CheckpointError
from internvl_lab.models import InternVL
from internvl_lab.models.language import to_transformers_language
from internvl_lab.models.vision import to_transformers_vision

OUR_KEY = "internvl_lab"
"""Key of our own settings in config.json; transformers carries it along untouched."""

_PART_CLASSES: dict[str, Any] = {"vision": VisionConfig, "projector": ProjectorConfig, "language": LanguageConfig}
_FREE_FIELDS = {"name", "weights", "tokenizer", "layer_scale_init", "max_position_embeddings", "rope_scaling_factor"}
"""Fields in which weights may differ from the model they are loaded into."""


def to_native_config(model: InternVL, dtype: str) -> dict[str, Any]:
    """Write a model's config.json: transformers' fields, and ours under `internvl_lab`.

    Args:
        model: the model.
        dtype: dtype of the saved tensors.
    """
    config = model.config
    native = InternVLConfig(
        vision_config=to_transformers_vision(config.vision),
        text_config=to_transformers_language(config.language),
        image_token_id=model.image_token_id,
        image_seq_length=config.num_visual_tokens,
        downsample_ratio=config.projector.downsample_ratio,
        tie_word_embeddings=False,
    ).to_dict()
    native |= {"architectures": ["InternVLForConditionalGeneration"], "dtype": dtype}
    native["text_config"]["use_cache"] = True  # off only in our packed training
    return native | {OUR_KEY: our_fields(config, dtype) | {"image_token_id": model.image_token_id}}


def our_fields(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """Return the settings that describe weights, without where those weights came from."""
    plain = replace(
        config,
        vision=replace(config.vision, weights=None),
        projector=replace(config.projector, weights=None),
        language=replace(config.language, weights=None),
        attention="auto",
        vision_attention="auto",
        dtype=dtype,
    )
    return asdict(plain)


def from_native_config(content: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """Read model settings and the image token's id from a native config.json, ours or plain transformers'.

    Raises:
        CheckpointError: a field is missing or unknown.
    """
    if OUR_KEY not in content and content.get("model_type") != InternVLConfig.model_type:
        raise CheckpointError(f"config.json describes no InternVL model: model_type={content.get('model_type')!r}")
    try:
        return _from_ours(content[OUR_KEY]) if OUR_KEY in content else _from_transformers(content)
    except (KeyError, *WRONG_KIND) as error:
        raise CheckpointError(f"config.json describes no InternVL model: {error}") from error


def is_tied(content: Mapping[str, Any]) -> bool:
    """Say whether a native config.json shares the output layer with the embeddings, which transformers does by default.

    Such a folder holds no `lm_head.weight`.
    """
    if OUR_KEY in content:
        return False
    flag: bool = content.get("tie_word_embeddings", InternVLConfig.tie_word_embeddings)
    return flag or bool(content.get("text_config", {}).get("tie_word_embeddings", False))


def parts_from_ours(content: Mapping[str, Any]) -> dict[str, Any]:
    """Read the parts of a checkpoint of ours that holds only some; empty for a whole one.

    Args:
        content: the `internvl_lab` section: `part`, or a list of `parts`, and a section of settings for each.
    Returns:
        Part to VisionConfig, ProjectorConfig or LanguageConfig.
    Raises:
        CheckpointError: a section is missing, or has unknown fields.
    """
    parts = [content["part"]] if "part" in content else content.get("parts", [])
    try:
        return {part: _PART_CLASSES[part](**content[part]) for part in parts}
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"config.json describes no part of InternVL: {error}") from error


def vision_from_native(content: Mapping[str, Any]) -> VisionConfig:
    """Translate the config.json of transformers' vision encoder alone."""
    return _vision(_parse(InternVLVisionConfig, content))


def check_switches(part: str, model: ModelConfig, source: ModelConfig, origin: str) -> None:
    """Refuse weights of a part that fit in shape but belong to another network (heads, norms, rotary base).

    Raises:
        CheckpointError: naming every field that differs.
    """
    wanted, found = asdict(getattr(model, part)), asdict(getattr(source, part))
    differing = [
        f"{key}={found[key]} instead of {wanted[key]}"
        for key in wanted
        if key not in _FREE_FIELDS and found[key] != wanted[key]
    ]
    if differing:
        raise CheckpointError(f"{origin}: the weights' model.{part} has {', '.join(differing)}")


def _parse(config_class: Any, content: Mapping[str, Any]) -> Any:
    """Let transformers read a config.json."""
    try:
        return config_class.from_dict(dict(content))
    except Exception as error:  # its checks raise classes of huggingface_hub, and more
        raise CheckpointError(f"config.json describes no InternVL model: {' '.join(str(error).split())}") from error


def _from_ours(content: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """Rebuild our dataclasses from the `internvl_lab` section."""
    fields = dict(content)
    fields.pop("part", None)
    image_token_id = int(fields.pop("image_token_id"))
    vision = VisionConfig(**fields.pop("vision"))
    projector = ProjectorConfig(**fields.pop("projector"))
    language = LanguageConfig(**fields.pop("language"))
    return ModelConfig(vision, projector, language, **fields), image_token_id


def _from_transformers(content: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """Translate a config.json that transformers or others wrote."""
    config = _parse(InternVLConfig, content)
    language: Any = config.text_config
    sizes = ("num_key_value_heads", "vocab_size", "max_position_embeddings", "rms_norm_eps")
    rope = language.rope_parameters
    kind = rope.get("rope_type", "default")
    wanted = {
        "vision_feature_layer": (config.vision_feature_layer, -1),
        "vision_feature_select_strategy": (config.vision_feature_select_strategy, "default"),
        "projector_hidden_act": (config.projector_hidden_act, "gelu"),
        "text_config.hidden_act": (language.hidden_act, "silu"),
        "text_config.use_sliding_window": (bool(getattr(language, "use_sliding_window", False)), False),
    }
    refuse_others(wanted | ({} if kind == "default" else {"text_config.rope_type": (kind, "dynamic")}))
    result = ModelConfig(
        vision=_vision(config.vision_config),
        projector=ProjectorConfig(downsample_ratio=config.downsample_ratio),
        language=LanguageConfig(
            name="native",
            model_type=language.model_type,
            **{key: getattr(language, key) for key in (*LAYER_SIZES, *sizes)},
            rope_theta=rope["rope_theta"],
            rope_scaling_factor=None if kind == "default" else rope["factor"],
        ),
        dtype="bfloat16" if content.get("dtype", content.get("torch_dtype")) == "bfloat16" else "float32",
    )
    return result, config.image_token_id


def _vision(config: Any) -> VisionConfig:
    """Translate transformers' vision settings."""
    refuse_others(
        {
            "vision_config.hidden_act": (config.hidden_act, "gelu"),
            "vision_config.image_size": (list(config.image_size), [config.image_size[0]] * 2),
            "vision_config.patch_size": (list(config.patch_size), [config.patch_size[0]] * 2),
        }
    )
    switches = ("norm_type", "use_qk_norm", "attention_bias", "layer_norm_eps")
    return VisionConfig(
        name="native",
        **{key: getattr(config, key) for key in (*LAYER_SIZES, *switches)},
        layer_scale_init=config.layer_scale_init_value,
        image_size=config.image_size[0],
        patch_size=config.patch_size[0],
    )
