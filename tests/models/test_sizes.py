"""All seven published sizes, to the parameter. Source: spec section 1.1-1.3."""

from __future__ import annotations

import pytest

from internvl_lab.config import LanguageConfig, ModelConfig, VisionConfig
from internvl_lab.models import build_on_meta, count_parameters

VIT_300M = VisionConfig()
VIT_6B = VisionConfig(
    hidden_size=3200,
    num_hidden_layers=45,
    num_attention_heads=25,
    intermediate_size=12800,
    norm_type="rms_norm",
    use_qk_norm=True,
    attention_bias=False,
)
PUBLISHED = {
    "1b": (VIT_300M, ("qwen2", 896, 4864, 24, 14, 2), (304_012_288, 4_482_816, 629_697_920, 938_193_024)),
    "2b": (VIT_300M, ("llama", 2048, 8192, 24, 16, 8), (304_012_288, 12_595_200, 1_889_146_880, 2_205_754_368)),
    "4b": (VIT_300M, ("qwen2", 2048, 11008, 36, 16, 2), (304_012_288, 12_595_200, 3_396_030_464, 3_712_637_952)),
    "8b": (VIT_300M, ("llama", 4096, 14336, 32, 32, 8), (304_012_288, 33_570_816, 7_737_782_272, 8_075_365_376)),
    "26b": (VIT_6B, ("llama", 6144, 16384, 48, 48, 8), (5_536_496_000, 116_429_824, 19_861_260_288, 25_514_186_112)),
    "38b": (VIT_6B, ("qwen2", 5120, 27648, 64, 40, 8), (5_536_496_000, 91_786_240, 32_759_882_752, 38_388_164_992)),
    "78b": (VIT_6B, ("qwen2", 8192, 29568, 80, 64, 8), (5_536_496_000, 172_008_448, 72_699_813_888, 78_408_318_336)),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_equal_the_published_counts(size: str) -> None:
    vision, (model_type, hidden, ffn, layers, heads, key_heads), counts = PUBLISHED[size]
    language = LanguageConfig(
        model_type=model_type,
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        vocab_size=151_674 if model_type == "qwen2" else 92_553,
    )
    model = build_on_meta(ModelConfig(vision=vision, language=language))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert count_parameters(model) == dict(zip(("vision", "projector", "language", "total"), counts, strict=True))
