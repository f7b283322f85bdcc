"""Settings in the authors' format (`internvl_chat` and its parts): config.json to our dataclasses and back.

No field is guessed when reading, because the defaults of the authors' config classes describe another net; and every
field is written, for the same reason. Source: spec sections 1.3, 1.5 and 1.7.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from internvl_lab.config import LanguageConfig, ModelConfig, ProjectorConfig, TilingConfig, VisionConfig
from internvl_lab.constants import SPECIAL_TOKENS
from internvl_lab.errors import CheckpointError

IMAGE_TOKEN_FROM_END = len(SPECIAL_TOKENS) - SPECIAL_TOKENS.index("<IMG_CONTEXT>")
"""The nine tokens end the vocabulary, so `<IMG_CONTEXT>` has id vocabulary size - 7."""

MODEL_TYPE = "internvl_chat"
VISION_TYPE = "intern_vit_6b"
"""`model_type` of both encoders, the 300M one included."""
LANGUAGE_TYPES = {"qwen2": "qwen2", "internlm2": "llama", "llama": "llama"}
"""The authors' language models, and what they run as here."""

WRONG_KIND = (TypeError, AttributeError, ValueError)
"""What reading a config.json raises when a field is a text in place of a number, a list in place of a section, ..."""

_CODE_REPOSITORY = "OpenGVLab/InternVL2_5-8B"
"""Where `auto_map` finds the authors' classes when the folder holds no code of its own."""
_CODE_CLASSES = {
    "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
    "AutoModel": "modeling_internvl_chat.InternVLChatModel",
    "AutoModelForCausalLM": "modeling_internvl_chat.InternVLChatModel",
}


def is_official(config: Mapping[str, Any]) -> bool:
    """Say whether a config.json is that of a whole model in the authors' format."""
    return config.get("model_type") == MODEL_TYPE


def from_official_config(content: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """Translate the authors' config.json of a whole model.

    Returns:
        Settings, and the image token's id (vocabulary size - 7).
    Raises:
        CheckpointError: a missing field, or a setting this model has no counterpart for.
    """
    try:
        tile_size = content["vision_config"]["image_size"]
        wanted = {
            "select_layer": (content["select_layer"], -1),
            "ps_version": (content["ps_version"], "v2"),
            "force_image_size": (content.get("force_image_size") or tile_size, tile_size),
        }
        refuse_others(wanted)
        config = ModelConfig(
            vision=vision_from_official(content["vision_config"], "vision_config."),
            projector=ProjectorConfig(downsample_ratio=content["downsample_ratio"]),
            language=language_from_official(content["llm_config"], "llm_config."),
        )
    except KeyError as error:
        raise CheckpointError(f"config.json in the authors' format lacks the field {error}") from error
    except WRONG_KIND as error:
        raise CheckpointError(f"config.json in the authors' format has a field of a wrong kind: {error}") from error
    return config, config.language.vocab_size - IMAGE_TOKEN_FROM_END


def vision_from_official(content: Mapping[str, Any], section: str = "") -> VisionConfig:
    """Translate `vision_config`, or the config.json of an InternViT published alone.

    Raises:
        CheckpointError: a setting this model has no counterpart for.
        KeyError: a missing field.
    """
    refuse_others({f"{section}hidden_act": (content.get("hidden_act", "gelu"), "gelu")})
    return VisionConfig(
        name="official",
        hidden_size=content["hidden_size"],
        num_hidden_layers=content["num_hidden_layers"],
        num_attention_heads=content["num_attention_heads"],
        intermediate_size=content["intermediate_size"],
        norm_type=content["norm_type"],
        use_qk_norm=content["qk_normalization"],
        attention_bias=content["qkv_bias"],
        layer_norm_eps=content["layer_norm_eps"],
        layer_scale_init=content.get("initializer_factor", VisionConfig.layer_scale_init),
        image_size=content["image_size"],
        patch_size=content["patch_size"],
    )


def language_from_official(content: Mapping[str, Any], section: str = "") -> LanguageConfig:
    """Translate `llm_config`, or the config.json of a language model published alone; InternLM2 becomes Llama.

    Raises:
        CheckpointError: a setting this model has no counterpart for.
        KeyError: a missing field.
    """
    if content["model_type"] not in LANGUAGE_TYPES:
        raise CheckpointError(f"config.json: {section}model_type={content['model_type']!r} is not supported")
    rope = content.get("rope_parameters") or {}
    scaling = content.get("rope_scaling") or rope
    kind = scaling.get("type", scaling.get("rope_type", None if "factor" in scaling else "default"))
    wanted = {
        f"{section}bias": (content.get("bias", False), False),
        f"{section}hidden_act": (content.get("hidden_act", "silu"), "silu"),
        f"{section}use_sliding_window": (content.get("use_sliding_window", False), False),
    }
    if kind != "default":
        wanted[f"{section}rope_scaling.type"] = (kind, "dynamic")
    refuse_others(wanted)
    return LanguageConfig(
        name="official",
        model_type=LANGUAGE_TYPES[content["model_type"]],
        hidden_size=content["hidden_size"],
        num_hidden_layers=content["num_hidden_layers"],
        num_attention_heads=content["num_attention_heads"],
        num_key_value_heads=content["num_key_value_heads"],
        intermediate_size=content["intermediate_size"],
        vocab_size=content["vocab_size"],
        max_position_embeddings=content["max_position_embeddings"],
        rope_theta=float(content["rope_theta"] if "rope_theta" in content else rope["rope_theta"]),
        rope_scaling_factor=None if kind == "default" else float(scaling["factor"]),
        rms_norm_eps=content["rms_norm_eps"],
    )


def to_official_config(
    config: ModelConfig, dtype: str, tiling: TilingConfig, token_ids: Mapping[str, int], own_code: bool
) -> dict[str, Any]:
    """Write the config.json of a whole model in the authors' format.

    Args:
        config: the model.
        dtype: dtype of the saved tensors.
        tiling: how the model's images are cut.
        token_ids: `bos_token_id` and the like of the tokenizer, as far as known.
        own_code: the folder holds the authors' modeling files itself.
    """
    prefix = "" if own_code else f"{_CODE_REPOSITORY}--"
    return {
        "architectures": ["InternVLChatModel"],
        "auto_map": {auto: prefix + name for auto, name in _CODE_CLASSES.items()},
        "model_type": MODEL_TYPE,
        "downsample_ratio": config.projector.downsample_ratio,
        "dynamic_image_size": True,
        "force_image_size": config.vision.image_size,
        "hidden_size": config.language.hidden_size,
        "llm_config": official_language_config(config.language, dtype, token_ids),
        "max_dynamic_patch": tiling.max_tiles,
        "min_dynamic_patch": tiling.min_tiles,
        "pad2square": False,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internvl2_5",
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "use_thumbnail": tiling.use_thumbnail,
        "vision_config": official_vision_config(config.vision, dtype),
    }


def official_vision_config(config: VisionConfig, dtype: str) -> dict[str, Any]:
    """Write `vision_config`, or the config.json of an InternViT alone; every field, since their defaults differ."""
    return {
        "architectures": ["InternVisionModel"],
        "attention_dropout": 0.0,
        "drop_path_rate": 0.0,
        "dropout": 0.0,
        "hidden_act": "gelu",
        "hidden_size": config.hidden_size,
        "image_size": config.image_size,
        "initializer_factor": config.layer_scale_init,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "layer_norm_eps": config.layer_norm_eps,
        "model_type": VISION_TYPE,
        "norm_type": config.norm_type,
        "num_attention_heads": config.num_attention_heads,
        "num_channels": 3,
        "num_hidden_layers": config.num_hidden_layers,
        "patch_size": config.patch_size,
        "qk_normalization": config.use_qk_norm,
        "qkv_bias": config.attention_bias,
        "torch_dtype": dtype,
        "use_flash_attn": True,  # the authors' code falls back by itself where flash-attn is missing
    }


def official_language_config(config: LanguageConfig, dtype: str, token_ids: Mapping[str, int]) -> dict[str, Any]:
    """Write `llm_config`, or the config.json of a language model alone; Llama is written as InternLM2."""
    internlm2 = config.model_type == "llama"
    content: dict[str, Any] = {
        "architectures": ["InternLM2ForCausalLM" if internlm2 else "Qwen2ForCausalLM"],
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "model_type": "internlm2" if internlm2 else "qwen2",
        "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": config.num_hidden_layers,
        "num_key_value_heads": config.num_key_value_heads,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
        "use_cache": True,
        "vocab_size": config.vocab_size,
        **token_ids,
    }
    if config.rope_scaling_factor is not None:
        content["rope_scaling"] = {"type": "dynamic", "factor": config.rope_scaling_factor}
    return content | ({"bias": False} if internlm2 else {"use_sliding_window": False})


def has_own_code(folder: Path) -> bool:
    """Say whether a folder holds the authors' modeling files, so that `auto_map` can name them."""
    return all((folder / f"{name.partition('.')[0]}.py").is_file() for name in _CODE_CLASSES.values())


def refuse_others(wanted: Mapping[str, tuple[Any, Any]]) -> None:
    """Refuse settings under which these weights would compute something else here.

    Args:
        wanted: name of a setting to (what it is, what it must be).
    Raises:
        CheckpointError: the first that differs.
    """
    for key, (found, expected) in wanted.items():
        if found != expected:
            raise CheckpointError(f"config.json: {key}={found!r} is not supported, only {expected!r}")
