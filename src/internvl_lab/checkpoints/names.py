"""Names and layouts of tensors: the authors' format (`internvl_chat`) to native keys and back.

    vision_model.*   fused qkv                <-> model.vision_tower.*
    mlp1.{0,1,3}                              <-> model.multi_modal_projector.*
    language_model.* Qwen2, as it is          <-> model.language_model.*, lm_head.weight
                     InternLM2, fused wqkv    <-> the same, as Llama

A part that was published alone has the same names without their first word; `root_of` finds that word.
Source of names and layouts: spec section 1.7 (authors' `tools/internvl_custom2hf.py`, `modeling_internlm2.py`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from internvl_lab.config import LanguageConfig
from internvl_lab.errors import CheckpointError

Rules = list[tuple[str, str]]
"""(the authors' name, our name); `{n}` stands for a layer, `{p}` for weight or bias."""

_VISION: Rules = [
    ("vision_model.embeddings.class_embedding", "model.vision_tower.embeddings.cls_token"),
    ("vision_model.embeddings.position_embedding", "model.vision_tower.embeddings.position_embeddings"),
    ("vision_model.embeddings.patch_embedding.{p}", "model.vision_tower.embeddings.patch_embeddings.projection.{p}"),
    ("vision_model.encoder.layers.{n}.ls1", "model.vision_tower.encoder.layer.{n}.lambda_1"),
    ("vision_model.encoder.layers.{n}.ls2", "model.vision_tower.encoder.layer.{n}.lambda_2"),
    ("vision_model.encoder.layers.{n}.norm1.{p}", "model.vision_tower.encoder.layer.{n}.layernorm_before.{p}"),
    ("vision_model.encoder.layers.{n}.norm2.{p}", "model.vision_tower.encoder.layer.{n}.layernorm_after.{p}"),
    (
        "vision_model.encoder.layers.{n}.attn.proj.{p}",
        "model.vision_tower.encoder.layer.{n}.attention.projection_layer.{p}",
    ),
    (
        "vision_model.encoder.layers.{n}.attn.q_norm.weight",
        "model.vision_tower.encoder.layer.{n}.attention.q_norm.weight",
    ),
    (
        "vision_model.encoder.layers.{n}.attn.k_norm.weight",
        "model.vision_tower.encoder.layer.{n}.attention.k_norm.weight",
    ),
    ("vision_model.encoder.layers.{n}.mlp.fc1.{p}", "model.vision_tower.encoder.layer.{n}.mlp.fc1.{p}"),
    ("vision_model.encoder.layers.{n}.mlp.fc2.{p}", "model.vision_tower.encoder.layer.{n}.mlp.fc2.{p}"),
]
_PROJECTOR: Rules = [
    ("mlp1.0.{p}", "model.multi_modal_projector.layer_norm.{p}"),
    ("mlp1.1.{p}", "model.multi_modal_projector.linear_1.{p}"),
    ("mlp1.3.{p}", "model.multi_modal_projector.linear_2.{p}"),
]
_INTERNLM2: Rules = [
    ("language_model.output.weight", "lm_head.weight"),
    ("language_model.model.tok_embeddings.weight", "model.language_model.embed_tokens.weight"),
    (
        "language_model.model.layers.{n}.attention.wo.weight",
        "model.language_model.layers.{n}.self_attn.o_proj.weight",
    ),
    ("language_model.model.layers.{n}.feed_forward.w1.weight", "model.language_model.layers.{n}.mlp.gate_proj.weight"),
    ("language_model.model.layers.{n}.feed_forward.w3.weight", "model.language_model.layers.{n}.mlp.up_proj.weight"),
    ("language_model.model.layers.{n}.feed_forward.w2.weight", "model.language_model.layers.{n}.mlp.down_proj.weight"),
    (
        "language_model.model.layers.{n}.attention_norm.weight",
        "model.language_model.layers.{n}.input_layernorm.weight",
    ),
    (
        "language_model.model.layers.{n}.ffn_norm.weight",
        "model.language_model.layers.{n}.post_attention_layernorm.weight",
    ),
]
_LANGUAGE: Rules = [
    ("language_model.lm_head.weight", "lm_head.weight"),
    ("language_model.model.{rest}", "model.language_model.{rest}"),
]
_OLDER_NATIVE: Rules = [  # transformers 4.52 and before, and the weights of our LightningModule
    ("vision_tower.{rest}", "model.vision_tower.{rest}"),
    ("multi_modal_projector.{rest}", "model.multi_modal_projector.{rest}"),
    ("model.lm_head.weight", "lm_head.weight"),
]
_HOLES = {"n": r"(?P<n>\d+)", "p": r"(?P<p>weight|bias)", "rest": r"(?P<rest>.+)"}

_FUSED_VISION = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.attn\.qkv\.(weight|bias)")
_FUSED_LANGUAGE = re.compile(r"language_model\.model\.layers\.(\d+)\.attention\.wqkv\.weight")
_SPLIT_VISION = re.compile(r"model\.vision_tower\.encoder\.layer\.(\d+)\.attention\.([qkv])_proj\.(weight|bias)")
_SPLIT_LANGUAGE = re.compile(r"model\.language_model\.layers\.(\d+)\.self_attn\.([qkv])_proj\.weight")

_ROOTS = [
    (r"(model\.)?(vision_tower|multi_modal_projector|language_model)\.|vision_model\.|mlp1\.", ""),
    (r"embeddings\.class_embedding|encoder\.layers\.", "vision_model."),
    (r"embeddings\.cls_token|encoder\.layer\.", "model.vision_tower."),
    (r"model\.(embed_tokens|tok_embeddings|layers)\.", "language_model."),
    (r"[013]\.(weight|bias)$", "mlp1."),
    (r"(layer_norm|linear_[12])\.(weight|bias)$", "model.multi_modal_projector."),
]
"""What the names of a source look like, to what they lack; the first that any name matches decides."""

OFFICIAL_ROOTS = {"vision": "vision_model.", "projector": "mlp1.", "language": "language_model."}
"""First word of a part's names in the authors' format; a part alone is published without it."""


def _compile(rules: Rules, forward: bool) -> list[tuple[re.Pattern[str], str]]:
    """Turn rules into (pattern, target), in either direction."""
    compiled = []
    for official, native in rules:
        source, target = (official, native) if forward else (native, official)
        pattern = re.escape(source).replace(r"\{", "{").replace(r"\}", "}").format(**_HOLES)
        compiled.append((re.compile(pattern), re.sub(r"\{(\w+)\}", r"\\g<\1>", target)))
    return compiled


_TO_NATIVE = _compile([*_VISION, *_PROJECTOR, *_INTERNLM2, *_LANGUAGE, *_OLDER_NATIVE], forward=True)
_FROM_NATIVE = {
    "qwen2": _compile([*_VISION, *_PROJECTOR, *_LANGUAGE], forward=False),
    "llama": _compile([*_VISION, *_PROJECTOR, *_INTERNLM2, *_LANGUAGE], forward=False),
}


def root_of(names: Collection[str]) -> str:
    """Return what the names of a source lack in front; empty for a whole model and for names nobody knows."""
    for pattern, root in _ROOTS:
        if any(re.match(pattern, name) for name in names):
            return root
    return ""


def to_native(name: str, tensor: Tensor, language: LanguageConfig | None) -> list[tuple[str, Tensor]]:
    """Translate one tensor to native keys; fused projections become three. Native keys stay as they are.

    Args:
        name: key in the authors' format, in transformers' older or present one, or in a LightningModule of ours.
        tensor: any shape; `qkv` (3*C, C) has rows in thirds, `wqkv` is grouped per key-value head.
        language: says how many heads there are; needed for InternLM2 alone.
    Returns:
        (native key, tensor); an unknown name comes back unchanged, for the caller to report.
    Raises:
        CheckpointError: `wqkv` without `language`.
    """
    if (match := _FUSED_VISION.fullmatch(name)) and tensor.ndim:
        stem = f"model.vision_tower.encoder.layer.{match[1]}.attention"
        return [(f"{stem}.{p}_proj.{match[2]}", rows) for p, rows in zip("qkv", tensor.chunk(3), strict=False)]
    if match := _FUSED_LANGUAGE.fullmatch(name):
        if language is None:
            raise CheckpointError(f"{name} cannot be split without a config.json that says how many heads there are")
        stem = f"model.language_model.layers.{match[1]}.self_attn"
        return [
            (f"{stem}.{p}_proj.weight", rows) for p, rows in zip("qkv", _split_wqkv(tensor, language), strict=False)
        ]
    for pattern, target in _TO_NATIVE:
        if match := pattern.fullmatch(name):
            return [(match.expand(target), tensor)]
    return [(name, tensor)]


@dataclass(frozen=True)
class OfficialTensor:
    """Describe one tensor of the authors' format: its name and the native keys that make it, in order."""

    name: str
    keys: tuple[str, ...]


def official_tensors(keys: Sequence[str], language: LanguageConfig) -> list[OfficialTensor]:
    """Plan the authors' format: which native keys make which tensor, in the order of `keys`.

    Args:
        keys: native keys of whole parts.
        language: Llama is written as InternLM2, whose fused `wqkv` the authors' engines expect.
    """
    fused: dict[str, list[str]] = {}
    for key in keys:
        fused.setdefault(_official_name(key, language.model_type), []).append(key)
    return [OfficialTensor(name, tuple(members)) for name, members in fused.items()]


def to_official(name: str, tensors: Sequence[Tensor], language: LanguageConfig) -> Tensor:
    """Build one tensor of the authors' format, the inverse of `to_native`.

    Args:
        name: the authors' key.
        tensors: what `official_tensors` lists for it: one of any shape, or q, k and v with (rows, D) or (rows,).
        language: says how many heads there are.
    """
    if len(tensors) == 1:
        return tensors[0]
    if _FUSED_VISION.fullmatch(name):
        return torch.cat(list(tensors))
    groups, width = language.num_key_value_heads, language.hidden_size
    heads = [tensor.reshape(groups, -1, width // language.num_attention_heads, width) for tensor in tensors]
    return torch.cat(heads, dim=1).flatten(0, 2)


def _official_name(key: str, model_type: str) -> str:
    """Return the authors' name for a native key; q, k and v share the fused one."""
    if match := _SPLIT_VISION.fullmatch(key):
        return f"vision_model.encoder.layers.{match[1]}.attn.qkv.{match[3]}"
    if model_type == "llama" and (match := _SPLIT_LANGUAGE.fullmatch(key)):
        return f"language_model.model.layers.{match[1]}.attention.wqkv.weight"
    for pattern, target in _FROM_NATIVE[model_type]:
        if match := pattern.fullmatch(key):
            return match.expand(target)
    raise CheckpointError(f"{key} has no counterpart in the authors' format")


def _split_wqkv(fused: Tensor, language: LanguageConfig) -> list[Tensor]:
    """Split InternLM2's (kv heads * (g + 2) * d, D) rows, per group g queries, a key, a value, into q, k, v.

    Rows that do not divide come back whole, for the caller to report as mis-shaped.
    """
    groups, width = language.num_key_value_heads, language.hidden_size
    queries, head_size = language.num_attention_heads // groups, width // language.num_attention_heads
    if fused.ndim != 2 or fused.shape[0] != groups * (queries + 2) * head_size:
        return [fused]
    heads = fused.view(groups, queries + 2, head_size, fused.shape[1])
    return [part.reshape(-1, fused.shape[1]) for part in (heads[:, :queries], heads[:, queries], heads[:, queries + 1])]
