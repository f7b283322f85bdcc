"""Settings survive the way through config.json, ours and transformers'."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from transformers import InternVLConfig

from internvl_lab.checkpoints.configs import OUR_KEY, check_switches, from_native_config, to_native_config
from internvl_lab.config import LanguageConfig, ModelConfig
from internvl_lab.errors import CheckpointError
from internvl_lab.models import InternVL

MakeModel = Callable[..., InternVL]
QWEN2 = LanguageConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, vocab_size=300)


def test_ours_round_trips_without_the_origin_of_the_weights(config: ModelConfig, make_model: MakeModel) -> None:
    model = make_model(replace(config, vision=replace(config.vision, weights="asset:x"), attention="dense"))
    content = json.loads(json.dumps(to_native_config(model, "bfloat16")))
    assert from_native_config(content) == (replace(config, dtype="bfloat16"), 293)


def test_a_plain_transformers_config_gives_the_same_model(config: ModelConfig, make_model: MakeModel) -> None:
    content = json.loads(json.dumps(to_native_config(make_model(config), "float32")))
    del content[OUR_KEY]
    found, image_token_id = from_native_config(content)
    assert image_token_id == 293
    named = replace(
        config,
        vision=replace(config.vision, name="native"),
        language=replace(config.language, name="native"),
    )
    assert found == named


def test_transformers_reads_it_untied_with_our_section_kept(config: ModelConfig, make_model: MakeModel) -> None:
    native = InternVLConfig.from_dict(to_native_config(make_model(config), "float32"))
    assert not native.tie_word_embeddings
    assert native.image_seq_length == 4
    assert native.to_dict()[OUR_KEY]["language"]["model_type"] == config.language.model_type


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_feature_layer": -2}, "vision_feature_layer=-2"),
        ({"vision_feature_select_strategy": "full"}, "select_strategy='full'"),
        ({"projector_hidden_act": "relu"}, "projector_hidden_act='relu'"),
        ({"vision_config": {"hidden_act": "relu"}}, "vision_config.hidden_act='relu'"),
        ({"vision_config": {"image_size": [56, 84]}}, "vision_config.image_size="),
        ({"text_config": {"hidden_act": "gelu"}}, "text_config.hidden_act='gelu'"),
        ({"text_config": {"use_sliding_window": True}}, "use_sliding_window=True"),
        ({"text_config": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}}, "'linear'"),
        ({"text_config": "qwen2"}, "describes no InternVL model"),
    ],
)
def test_settings_without_counterpart_are_refused(
    change: dict[str, Any], message: str, config: ModelConfig, make_model: MakeModel
) -> None:
    """Each of them changes the logits by 0.1 to 5 on random weights, and no tensor's name or shape tells."""
    content = json.loads(json.dumps(to_native_config(make_model(replace(config, language=QWEN2)), "float32")))
    del content[OUR_KEY]
    for key, value in change.items():
        content[key] = content[key] | value if isinstance(value, dict) else value
    with pytest.raises(CheckpointError) as caught:
        from_native_config(content)
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [{}, {"model_type": "llava"}, {OUR_KEY: {"image_token_id": 1, "wrong": 2}}])
def test_other_files_are_refused(content: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        from_native_config(content)


def test_weights_that_fit_in_shape_but_not_in_meaning_are_refused(config: ModelConfig) -> None:
    other = replace(config, language=replace(config.language, rope_theta=1e6, name="x", weights="y"))
    check_switches("vision", config, other, "folder X")
    with pytest.raises(CheckpointError, match=r"folder X: .*model\.language has rope_theta=1000000\.0 instead of"):
        check_switches("language", config, other, "folder X")
    heads = replace(config, vision=replace(config.vision, num_attention_heads=4))
    with pytest.raises(CheckpointError, match="num_attention_heads=4 instead of 2"):
        check_switches("vision", config, heads, "folder X")
