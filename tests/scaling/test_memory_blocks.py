"""The blocks' parameters are the model's, and what they keep follows from what trains."""

from __future__ import annotations

from dataclasses import replace

import pytest

from internvl_lab.config import LanguageConfig, LoraConfig, ModelConfig, VisionConfig
from internvl_lab.config.compose import compose
from internvl_lab.constants import PARTS
from internvl_lab.models import add_adapters, build_on_meta, count_parameters, is_adapter
from internvl_lab.scaling.memory_blocks import PackUse, chunk_rows, flow_of, model_blocks
from internvl_lab.scaling.memory_numerics import numerics

USE = PackUse(tokens=100, sum_sq=3000, tiles=4, supervised_rows=10)
NONE = LoraConfig()
FP32 = numerics("float32", "32-true")
VISION = VisionConfig(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=56, patch_size=14
)
LANGUAGE = LanguageConfig(
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=80,
    vocab_size=64,
)
SMALL = {
    "300m_qwen2": ModelConfig(vision=VISION, language=LANGUAGE),
    "6b_llama": ModelConfig(
        vision=replace(VISION, norm_type="rms_norm", use_qk_norm=True, attention_bias=False),
        language=replace(LANGUAGE, model_type="llama"),
    ),
}


def kept(config: ModelConfig, trainable: tuple[str, ...], lora: LoraConfig = NONE, recompute: tuple[str, ...] = ()):
    sums = dict.fromkeys((*PARTS, "logits"), 0.0)
    for block in model_blocks(config, USE, FP32, trainable, lora, recompute):
        sums[block.part] += block.saved
    return sums


@pytest.mark.parametrize("name", SMALL)
def test_parameters_of_each_part_are_those_of_the_model(name):
    config = SMALL[name]
    counts = count_parameters(build_on_meta(config))
    blocks = model_blocks(config, USE, FP32, PARTS, NONE, ())
    for part in PARTS:
        assert sum(block.parameters for block in blocks if block.part == part) == counts[part]
    assert sum(block.trained for block in blocks) == counts["total"]


@pytest.mark.parametrize(
    ("size", "published"),
    [
        ("1b", 938_193_024),
        ("2b", 2_205_754_368),
        ("4b", 3_712_637_952),
        ("8b", 8_075_365_376),
        ("26b", 25_514_186_112),
        ("38b", 38_388_164_992),
        ("78b", 78_408_318_336),
    ],
)
def test_the_published_sizes_come_out_without_a_model(size, published):
    blocks = model_blocks(compose([f"model=internvl2_5_{size}"]).model, USE, FP32, PARTS, NONE, ())
    assert sum(block.parameters for block in blocks) == published


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("parts", [("vision",), ("language",), ("vision", "language")])
def test_adapters_are_counted_as_they_are_built(name, parts):
    model, lora = build_on_meta(SMALL[name]), LoraConfig(parts=parts, rank=3)
    add_adapters(model, lora)
    adapters = sum(p.numel() for key, p in model.named_parameters() if is_adapter(key))
    blocks = model_blocks(SMALL[name], USE, FP32, (), lora, ())
    assert sum(block.trained for block in blocks) == adapters
    assert sum(block.parameters for block in blocks) == sum(p.numel() for p in model.parameters())


def test_what_no_gradient_passes_through_keeps_nothing():
    config = SMALL["300m_qwen2"]
    only_projector, everything = kept(config, ("projector",)), kept(config, PARTS)
    assert only_projector["vision"] == 0
    assert 0 < only_projector["language"] < everything["language"]  # scores and products still need their operands
    only_language = kept(config, ("language",))
    assert only_language["vision"] == only_language["projector"] == 0
    assert kept(config, (), LoraConfig(parts=("vision",)))["language"] == only_projector["language"]


def test_a_recomputed_layer_keeps_its_input_alone():
    config = SMALL["300m_qwen2"]
    plain = [b for b in model_blocks(config, USE, FP32, PARTS, NONE, ()) if b.is_layer and b.part == "language"]
    light = [b for b in model_blocks(config, USE, FP32, PARTS, NONE, ("language",)) if b.is_layer]
    layers = [b for b in light if b.part == "language"]
    assert {b.saved for b in layers} == {100 * 48 * 4}
    assert layers[0].saved + layers[0].recomputed == plain[0].saved
    assert all(b.recomputed == 0 for b in light if b.part == "vision")


def test_a_decoder_layer_by_hand():
    """Frozen on a GPU in bf16: fp32 inputs of two norms, q, out, k, v, and gate, up, SiLU, two bytes each."""
    n = numerics("bfloat16", "32-true")
    blocks = model_blocks(SMALL["6b_llama"], USE, n, ("projector",), NONE, ())
    layer = next(block for block in blocks if block.is_layer and block.part == "language")
    norms, states, products, logsumexp = 2 * 4 * (48 + 1), 2 * (48 + 48 + 24 + 24), 2 * 3 * 80, 4 * 4
    assert layer.saved == 100 * (norms + states + products + logsumexp)


def test_gradients_reach_a_part_from_below():
    assert [flow_of(part, ("projector",), NONE, ()).reached for part in PARTS] == [False, True, True]
    assert [flow_of(part, (), LoraConfig(parts=("language",)), ()).reached for part in PARTS] == [False, False, True]


def test_the_head_works_in_chunks_above_its_budget():
    config = replace(SMALL["300m_qwen2"], logits_byte_budget=64 * 4 * 3)
    assert chunk_rows(config, 10) == 3
    assert chunk_rows(config, 2) == 2
    assert kept(config, PARTS)["logits"] == 0
    assert kept(SMALL["300m_qwen2"], PARTS)["logits"] == 10 * 64 * 4
