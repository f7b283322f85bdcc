import pytest

from internvl_lab.config import InitConfig, LanguageConfig, ModelConfig, ProjectorConfig, VisionConfig
from internvl_lab.errors import ConfigError


def test_visual_tokens_of_the_report_and_of_the_mini_family():
    assert ModelConfig().num_visual_tokens == 256
    mini = ModelConfig(vision=VisionConfig(hidden_size=128, num_attention_heads=4, image_size=112))
    assert mini.num_visual_tokens == 16


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: VisionConfig(image_size=100), "image_size"),
        (lambda: VisionConfig(hidden_size=100), "hidden_size"),
        (lambda: VisionConfig(norm_type="batch_norm"), "norm_type"),
        (lambda: LanguageConfig(model_type="gpt2"), "model_type"),
        (lambda: LanguageConfig(num_attention_heads=3), "num_attention_heads"),
        (lambda: ModelConfig(projector=ProjectorConfig(downsample_ratio=0.3)).num_visual_tokens, "downsample_ratio"),
        (lambda: InitConfig().part("audio"), "audio"),
        (lambda: VisionConfig(patch_size=0), r"model\.vision\.patch_size=0"),
        (lambda: VisionConfig(image_size=0), r"model\.vision\.image_size=0"),
        (lambda: VisionConfig(num_attention_heads=0), r"model\.vision\.num_attention_heads=0"),
        (lambda: VisionConfig(num_hidden_layers=0), r"model\.vision\.num_hidden_layers=0"),
        (lambda: VisionConfig(layer_norm_eps=0.0), r"model\.vision\.layer_norm_eps"),
        (lambda: LanguageConfig(num_key_value_heads=0), r"model\.language\.num_key_value_heads=0"),
        (lambda: LanguageConfig(vocab_size=0), r"model\.language\.vocab_size=0"),
        (lambda: LanguageConfig(rope_theta=0.0), r"model\.language\.rope_theta"),
        (lambda: ProjectorConfig(downsample_ratio=0.0), r"model\.projector\.downsample_ratio"),
        (lambda: ProjectorConfig(downsample_ratio=2.0), r"model\.projector\.downsample_ratio"),
        (lambda: ModelConfig(logits_byte_budget=0), r"model\.logits_byte_budget=0"),
    ],
)
def test_impossible_values_name_the_key(make, key):
    with pytest.raises(ConfigError, match=key):
        make()


def test_init_from_is_read_per_part():
    assert InitConfig(vision="a", language="b").part("language") == "b"
