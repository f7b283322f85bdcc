"""The decoder: right class, untied, right rotary base, sound random weights."""

from __future__ import annotations

from dataclasses import replace

import torch
from transformers.models.llama.modeling_llama import LlamaModel
from transformers.models.qwen2.modeling_qwen2 import Qwen2Model

from internvl_lab.config import ModelConfig
from internvl_lab.models import build_language
from internvl_lab.models.attention import PACKED_ATTENTION
from internvl_lab.models.language import build_head, to_transformers_language


def test_the_model_type_chooses_the_class(config: ModelConfig) -> None:
    model = build_language(config.language, PACKED_ATTENTION)
    assert type(model) is {"qwen2": Qwen2Model, "llama": LlamaModel}[config.language.model_type]
    assert (model.layers[0].self_attn.q_proj.bias is not None) == (config.language.model_type == "qwen2")
    assert model.config._attn_implementation == "internvl_packed"
    assert not model.config.tie_word_embeddings


def test_dynamic_scaling_changes_nothing_within_the_trained_length(small_config: ModelConfig) -> None:
    plain = replace(small_config.language, model_type="llama", rope_theta=5e7)
    scaled = replace(plain, rope_scaling_factor=2.5)
    assert to_transformers_language(scaled).rope_parameters["rope_type"] == "dynamic"
    frequencies = [build_language(cfg, "sdpa").rotary_emb.inv_freq for cfg in (plain, scaled)]
    assert torch.equal(*frequencies)
    assert torch.allclose(frequencies[0][1], torch.tensor(5e7) ** (-2 / 8))


def test_random_weights_are_sound(config: ModelConfig) -> None:
    head = build_head(config.language)
    assert head.bias is None
    assert 0.018 < head.weight.std() < 0.022
    for name, parameter in build_language(config.language, "sdpa").named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            assert 0.015 < parameter.std() < 0.025, name
