"""The causal language model without its head: transformers' Qwen2, or Llama for InternLM2.5."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaModel
from transformers.models.qwen2.configuration_qwen2 import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2Model

from internvl_lab.config import LanguageConfig
from internvl_lab.models.vision import INITIALIZER_RANGE


def to_transformers_language(cfg: LanguageConfig) -> Qwen2Config | LlamaConfig:
    """Translate our language settings into transformers' config class; never tied, never cached by default.

    Dynamic NTK scaling (InternLM2.5) changes positions only beyond `max_position_embeddings`.
    """
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": cfg.rope_theta}
    if cfg.rope_scaling_factor is not None:
        rope |= {"rope_type": "dynamic", "factor": cfg.rope_scaling_factor}
    config_class = Qwen2Config if cfg.model_type == "qwen2" else LlamaConfig
    return config_class(
        vocab_size=cfg.vocab_size,
        hidden_size=cfg.hidden_size,
        intermediate_size=cfg.intermediate_size,
        num_hidden_layers=cfg.num_hidden_layers,
        num_attention_heads=cfg.num_attention_heads,
        num_key_value_heads=cfg.num_key_value_heads,
        max_position_embeddings=cfg.max_position_embeddings,
        rms_norm_eps=cfg.rms_norm_eps,
        rope_parameters=rope,
        initializer_range=INITIALIZER_RANGE,
        tie_word_embeddings=False,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
    )


def build_language(cfg: LanguageConfig, attention: str) -> Qwen2Model | LlamaModel:
    """Build the decoder with random weights, in torch's default dtype.

    Args:
        cfg: sizes.
        attention: transformers' name of the attention function; ours is `models.attention.PACKED_ATTENTION`.
    """
    config = to_transformers_language(cfg)
    config._attn_implementation = attention
    return Qwen2Model(config) if isinstance(config, Qwen2Config) else LlamaModel(config)


def build_head(cfg: LanguageConfig) -> nn.Linear:
    """Build the output layer (hidden to vocabulary, no bias), untied from the embeddings in all sizes."""
    head = nn.Linear(cfg.hidden_size, cfg.vocab_size, bias=False)
    nn.init.normal_(head.weight, 0.0, INITIALIZER_RANGE)
    return head
