"""What every kind of configuration says about its parts."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import InternVLVisionConfig, LlamaConfig, Qwen2Config

from internvl_lab.checkpoints.official import official_language_config, official_vision_config, to_official_config
from internvl_lab.checkpoints.settings import from_content, read_settings
from internvl_lab.config import ModelConfig, TilingConfig
from internvl_lab.constants import PARTS
from internvl_lab.errors import CheckpointError
from internvl_lab.models.vision import to_transformers_vision


def unnamed(config: Any) -> dict[str, Any]:
    return {key: value for key, value in asdict(config).items() if key not in ("name", "weights", "tokenizer")}


def test_the_authors_settings_go_out_and_come_back(config: ModelConfig) -> None:
    content = json.loads(json.dumps(to_official_config(config, "bfloat16", TilingConfig(), {"eos_token_id": 2}, False)))
    found = from_content(content)
    for part in PARTS:
        assert unnamed(getattr(found, part)) == unnamed(getattr(config, part))
    assert (found.parts, found.image_token_id, found.is_plain_language) == (PARTS, 293, False)
    assert content["llm_config"]["eos_token_id"] == 2


def test_parts_alone_describe_themselves_only(config: ModelConfig) -> None:
    vision = from_content(official_vision_config(config.vision, "float32"))
    assert vision.parts == ("vision",)
    assert unnamed(vision.vision) == unnamed(config.vision)
    native = from_content(to_transformers_vision(config.vision).to_dict())
    assert InternVLVisionConfig.model_type == "internvl_vision"
    assert unnamed(native.vision) == unnamed(config.vision)
    language = from_content(official_language_config(config.language, "float32", {}))
    assert (language.parts, language.is_plain_language, language.is_tied) == (("language",), True, False)
    assert unnamed(language.language) == unnamed(config.language)


@pytest.mark.parametrize(("config_class", "model_type"), [(Qwen2Config, "qwen2"), (LlamaConfig, "llama")])
def test_a_language_model_that_transformers_saved_is_understood(config_class: Any, model_type: str) -> None:
    theirs = config_class(
        vocab_size=99, tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 7e5}
    )
    found = from_content(json.loads(json.dumps(theirs.to_dict())))
    assert found.language is not None
    assert (found.language.model_type, found.language.rope_theta, found.language.vocab_size) == (model_type, 7e5, 99)
    assert found.is_tied
    assert found.is_plain_language


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling.type='llama3'"),
        ({"use_sliding_window": True}, "use_sliding_window=True"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"num_attention_heads": None}, "'num_attention_heads'"),
        ({"model_type": "phi3"}, "phi3"),
        ({"rope_scaling": {"factor": 2.0}}, "rope_scaling.type=None"),
        ({"rope_scaling": "dynamic"}, "wrong kind"),
        ({"hidden_size": "32"}, "wrong kind"),
    ],
)
def test_settings_are_never_guessed(change: dict[str, Any], message: str, config: ModelConfig) -> None:
    content = official_language_config(config.language, "float32", {}) | change
    content = {key: value for key, value in content.items() if value is not None}
    with pytest.raises(CheckpointError) as caught:
        from_content(content)
    assert message in str(caught.value)


def test_a_checkpoint_is_described_by_its_run(config: ModelConfig, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "stages" / "stage1" / "checkpoints" / "step_00000001.ckpt"
    assert read_settings(checkpoint).parts == ()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({"model": asdict(config)}))
    found = read_settings(checkpoint)
    assert found.parts == PARTS
    assert found.language == config.language
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({"model": {"vision": {"width": 3}}}))
    with pytest.raises(CheckpointError, match=r"config\.yaml: unknown key 'model\.vision\.width'"):
        read_settings(checkpoint)


def test_nothing_known_is_no_error(tmp_path: Path) -> None:
    assert read_settings(tmp_path).parts == ()
    assert read_settings(tmp_path / "mlp.safetensors").parts == ()
    with pytest.raises(CheckpointError, match="no part of InternVL"):
        from_content({"internvl_lab": {"part": "vision"}})
