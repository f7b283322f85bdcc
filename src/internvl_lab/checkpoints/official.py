"""The authors' checkpoint format (`internvl_chat`) as native tensors.

    vision_model.*   fused qkv                -> model.vision_tower.*
    mlp1.{0,1,3}                              -> model.multi_modal_projector.*
    language_model.* Qwen2, as it is          -> model.language_model.*, lm_head.weight
                     InternLM2, fused wqkv    -> the same, as Llama

Tensors are translated one by one, so a checkpoint of any size passes in little memory.
Source of names and layouts: spec section 1.7 (authors' `tools/internvl_custom2hf.py`, `modeling_internlm2.py`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from internvl_lab.checkpoints.files import read_json
from internvl_lab.checkpoints.tensors import CONFIG_FILE, belongs_to, copy_into, iter_tensors
from internvl_lab.config import LanguageConfig, ModelConfig, ProjectorConfig, VisionConfig
from internvl_lab.constants import PARTS, SPECIAL_TOKENS
from internvl_lab.errors import CheckpointError
from internvl_lab.models import InternVL

IMAGE_TOKEN_FROM_END = len(SPECIAL_TOKENS) - SPECIAL_TOKENS.index("<IMG_CONTEXT>")
"""The nine tokens end the vocabulary, so `<IMG_CONTEXT>` has id vocabulary size - 7."""

_RENAMES = [
    (r"vision_model\.embeddings\.class_embedding", "model.vision_tower.embeddings.cls_token"),
    (r"vision_model\.embeddings\.position_embedding", "model.vision_tower.embeddings.position_embeddings"),
    (
        r"vision_model\.embeddings\.patch_embedding\.(weight|bias)",
        r"model.vision_tower.embeddings.patch_embeddings.projection.\1",
    ),
    (r"vision_model\.encoder\.layers\.(\d+)\.ls([12])", r"model.vision_tower.encoder.layer.\1.lambda_\2"),
    (
        r"vision_model\.encoder\.layers\.(\d+)\.norm1\.(weight|bias)",
        r"model.vision_tower.encoder.layer.\1.layernorm_before.\2",
    ),
    (
        r"vision_model\.encoder\.layers\.(\d+)\.norm2\.(weight|bias)",
        r"model.vision_tower.encoder.layer.\1.layernorm_after.\2",
    ),
    (
        r"vision_model\.encoder\.layers\.(\d+)\.attn\.proj\.(weight|bias)",
        r"model.vision_tower.encoder.layer.\1.attention.projection_layer.\2",
    ),
    (
        r"vision_model\.encoder\.layers\.(\d+)\.attn\.([qk])_norm\.weight",
        r"model.vision_tower.encoder.layer.\1.attention.\2_norm.weight",
    ),
    (
        r"vision_model\.encoder\.layers\.(\d+)\.mlp\.(fc[12])\.(weight|bias)",
        r"model.vision_tower.encoder.layer.\1.mlp.\2.\3",
    ),
    (r"mlp1\.0\.(weight|bias)", r"model.multi_modal_projector.layer_norm.\1"),
    (r"mlp1\.1\.(weight|bias)", r"model.multi_modal_projector.linear_1.\1"),
    (r"mlp1\.3\.(weight|bias)", r"model.multi_modal_projector.linear_2.\1"),
    (r"language_model\.(?:lm_head|output)\.weight", "lm_head.weight"),
    (r"language_model\.model\.tok_embeddings\.weight", "model.language_model.embed_tokens.weight"),
    (
        r"language_model\.model\.layers\.(\d+)\.attention\.wo\.weight",
        r"model.language_model.layers.\1.self_attn.o_proj.weight",
    ),
    (
        r"language_model\.model\.layers\.(\d+)\.feed_forward\.w1\.weight",
        r"model.language_model.layers.\1.mlp.gate_proj.weight",
    ),
    (
        r"language_model\.model\.layers\.(\d+)\.feed_forward\.w3\.weight",
        r"model.language_model.layers.\1.mlp.up_proj.weight",
    ),
    (
        r"language_model\.model\.layers\.(\d+)\.feed_forward\.w2\.weight",
        r"model.language_model.layers.\1.mlp.down_proj.weight",
    ),
    (
        r"language_model\.model\.layers\.(\d+)\.attention_norm\.weight",
        r"model.language_model.layers.\1.input_layernorm.weight",
    ),
    (
        r"language_model\.model\.layers\.(\d+)\.ffn_norm\.weight",
        r"model.language_model.layers.\1.post_attention_layernorm.weight",
    ),
    (r"language_model\.model\.(.+)", r"model.language_model.\1"),
]
_RULES = [(re.compile(pattern), target) for pattern, target in _RENAMES]
_FUSED_VISION = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.attn\.qkv\.(weight|bias)")
_FUSED_LANGUAGE = re.compile(r"language_model\.model\.layers\.(\d+)\.attention\.wqkv\.weight")
_PART_OF_PREFIX = {"vision_model": "vision", "mlp1": "projector", "language_model": "language"}


def is_official(config: Mapping[str, Any]) -> bool:
    """Say whether a config.json is in the authors' format."""
    return config.get("model_type") == "internvl_chat"


def load_official(folder: Path, attention: str = "auto", dtype: str = "float32") -> InternVL:
    """Load a checkpoint in the authors' format.

    Args:
        folder: config.json and safetensors, one file or shards with an index.
        attention: backend of the language model.
        dtype: dtype of the parameters.
    Raises:
        CheckpointError: settings this model has no counterpart for, or tensors that do not fit, all listed.
    """
    config, image_token_id = from_official_config(read_json(folder / CONFIG_FILE))
    model = InternVL(
        ModelConfig(config.vision, config.projector, config.language, attention=attention, dtype=dtype), image_token_id
    )
    copy_into(model, iter_native(folder, config, PARTS), PARTS, str(folder))
    return model


def iter_native(folder: Path, config: ModelConfig, parts: Collection[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield (native key, tensor of any shape) of the given parts; a tensor without counterpart keeps its name.

    Args:
        folder: a checkpoint in the authors' format.
        config: its settings, from `from_official_config`.
        parts: parts to read.
    """

    def wanted(name: str) -> bool:
        """Say whether a tensor belongs to the parts asked for."""
        part = _PART_OF_PREFIX.get(name.partition(".")[0])
        return belongs_to(name, parts) if part is None else part in parts

    for name, tensor in iter_tensors(folder, wanted):
        yield from to_native(name, tensor, config.language)


def to_native(name: str, tensor: Tensor, language: LanguageConfig) -> list[tuple[str, Tensor]]:
    """Translate one tensor of the authors' format; fused projections become three.

    Args:
        name: the authors' key.
        tensor: any shape; `qkv` (3*C, C) has rows in thirds, `wqkv` is grouped per key-value head.
        language: says how many heads there are.
    Returns:
        (native key, tensor); an unknown name comes back unchanged, for the caller to report.
    """
    if match := _FUSED_VISION.fullmatch(name):
        stem = f"model.vision_tower.encoder.layer.{match[1]}.attention"
        return [(f"{stem}.{p}_proj.{match[2]}", rows) for p, rows in zip("qkv", tensor.chunk(3), strict=True)]
    if match := _FUSED_LANGUAGE.fullmatch(name):
        stem = f"model.language_model.layers.{match[1]}.self_attn"
        return [
            (f"{stem}.{p}_proj.weight", rows) for p, rows in zip("qkv", _split_wqkv(tensor, language), strict=False)
        ]
    for pattern, target in _RULES:
        if pattern.fullmatch(name):
            return [(pattern.sub(target, name), tensor)]
    return [(name, tensor)]


def from_official_config(content: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """Translate the authors' config.json; no field is guessed, because their defaults describe another net.

    Returns:
        Settings, and the image token's id (vocabulary size - 7).
    Raises:
        CheckpointError: a missing field, or a setting this model has no counterpart for.
    """
    try:
        _check_supported(content)
        vision, language = content["vision_config"], content["llm_config"]
        config = ModelConfig(
            vision=_vision_config(vision),
            projector=ProjectorConfig(downsample_ratio=content["downsample_ratio"]),
            language=_language_config(language),
        )
    except KeyError as error:
        raise CheckpointError(f"config.json in the authors' format lacks the field {error}") from error
    return config, config.language.vocab_size - IMAGE_TOKEN_FROM_END


def _vision_config(content: Mapping[str, Any]) -> VisionConfig:
    """Translate `vision_config`."""
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


def _language_config(content: Mapping[str, Any]) -> LanguageConfig:
    """Translate `llm_config`; InternLM2 becomes Llama."""
    scaling = content.get("rope_scaling") or {}
    return LanguageConfig(
        name="official",
        model_type={"qwen2": "qwen2", "internlm2": "llama", "llama": "llama"}[content["model_type"]],
        hidden_size=content["hidden_size"],
        num_hidden_layers=content["num_hidden_layers"],
        num_attention_heads=content["num_attention_heads"],
        num_key_value_heads=content["num_key_value_heads"],
        intermediate_size=content["intermediate_size"],
        vocab_size=content["vocab_size"],
        max_position_embeddings=content["max_position_embeddings"],
        rope_theta=content["rope_theta"],
        rope_scaling_factor=scaling.get("factor"),
        rms_norm_eps=content["rms_norm_eps"],
    )


def _check_supported(content: Mapping[str, Any]) -> None:
    """Refuse settings under which these weights would compute something else here."""
    language = content["llm_config"]
    scaling = language.get("rope_scaling") or {}
    wanted = {
        "select_layer": (content["select_layer"], -1),
        "ps_version": (content["ps_version"], "v2"),
        "llm_config.tie_word_embeddings": (language.get("tie_word_embeddings", False), False),
        "llm_config.bias": (language.get("bias", False), False),
        "llm_config.rope_scaling.type": (scaling.get("type", scaling.get("rope_type", "dynamic")), "dynamic"),
        "llm_config.hidden_act": (language.get("hidden_act", "silu"), "silu"),
        "vision_config.hidden_act": (content["vision_config"].get("hidden_act", "gelu"), "gelu"),
    }
    for key, (found, expected) in wanted.items():
        if found != expected:
            raise CheckpointError(f"config.json: {key}={found!r} is not supported, only {expected!r}")
    if language["model_type"] not in ("qwen2", "internlm2", "llama"):
        raise CheckpointError(f"config.json: llm_config.model_type={language['model_type']!r} is not supported")


def _split_wqkv(fused: Tensor, language: LanguageConfig) -> list[Tensor]:
    """Split InternLM2's (kv heads * (g + 2) * d, D) rows, per group g queries, a key, a value, into q, k, v.

    Rows that do not divide come back whole, for the caller to report as mis-shaped.
    """
    groups, width = language.num_key_value_heads, language.hidden_size
    queries, head_size = language.num_attention_heads // groups, width // language.num_attention_heads
    if fused.shape[0] != groups * (queries + 2) * head_size:
        return [fused]
    heads = fused.view(groups, queries + 2, head_size, fused.shape[1])
    return [part.reshape(-1, fused.shape[1]) for part in (heads[:, :queries], heads[:, queries], heads[:, queries + 1])]
