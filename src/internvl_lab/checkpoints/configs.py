"""Translate model settings between our dataclasses and the config.json of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from transformers.models.internvl.configuration_internvl import InternVLConfig

from internvl_lab.config import LanguageConfig, ModelConfig, ProjectorConfig, VisionConfig
from internvl_lab.errors import CheckpointError
from internvl_lab.models import InternVL
from internvl_lab.models.language import to_transformers_language
from internvl_lab.models.vision import to_transformers_vision

OUR_KEY = "internvl_lab"
"""Key of our own settings in config.json; transformers carries it along untouched."""

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
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"config.json describes no InternVL model: {error}") from error


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
    config = InternVLConfig.from_dict(dict(content))
    vision: Any = config.vision_config
    language: Any = config.text_config
    shared = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    switches = ("norm_type", "use_qk_norm", "attention_bias", "layer_norm_eps")
    sizes = ("num_key_value_heads", "vocab_size", "max_position_embeddings", "rms_norm_eps")
    rope = language.rope_parameters
    result = ModelConfig(
        vision=VisionConfig(
            name="native",
            **{key: getattr(vision, key) for key in (*shared, *switches)},
            layer_scale_init=vision.layer_scale_init_value,
            image_size=vision.image_size[0],
            patch_size=vision.patch_size[0],
        ),
        projector=ProjectorConfig(downsample_ratio=config.downsample_ratio),
        language=LanguageConfig(
            name="native",
            model_type=language.model_type,
            **{key: getattr(language, key) for key in (*shared, *sizes)},
            rope_theta=rope["rope_theta"],
            rope_scaling_factor=rope["factor"] if rope.get("rope_type") == "dynamic" else None,
        ),
        dtype="bfloat16" if content.get("dtype", content.get("torch_dtype")) == "bfloat16" else "float32",
    )
    return result, config.image_token_id
