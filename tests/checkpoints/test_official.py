"""The authors' format: key map, fused projections by hand, strict settings and tensors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from internvl_lab.checkpoints import load_model, load_official, load_part
from internvl_lab.checkpoints.names import to_native
from internvl_lab.checkpoints.official import from_official_config
from internvl_lab.config import LanguageConfig
from internvl_lab.errors import CheckpointError
from internvl_lab.models import InternVL

GROUPED = LanguageConfig(hidden_size=16, num_attention_heads=4, num_key_value_heads=2, model_type="llama")


@pytest.fixture(params=["300m_qwen2", "6b_internlm2"])
def folder(request: pytest.FixtureRequest, golden: Path, tmp_path: Path) -> Path:
    """Give a copy of a golden checkpoint."""
    return Path(shutil.copytree(golden / str(request.param), tmp_path / "official"))


def change(folder: Path, **settings: Any) -> None:
    content = json.loads((folder / "config.json").read_text())
    for key, value in settings.items():
        section, _, field = key.rpartition("__")
        target = content[section] if section else content
        if value is None:
            del target[field]
        else:
            target[field] = value
    (folder / "config.json").write_text(json.dumps(content))


def test_wqkv_is_grouped_by_key_value_head() -> None:
    """Rows 0-31: group 0 holds queries 0 and 1, key 0, value 0, four rows each; then group 1."""
    fused = torch.arange(32.0)[:, None].expand(32, 16)
    parts = dict(to_native("language_model.model.layers.5.attention.wqkv.weight", fused, GROUPED))
    stem = "model.language_model.layers.5.self_attn"
    rows = {name.removeprefix(stem): tensor[:, 0].tolist() for name, tensor in parts.items()}
    assert rows == {
        ".q_proj.weight": [*range(0, 8), *range(16, 24)],
        ".k_proj.weight": [*range(8, 12), *range(24, 28)],
        ".v_proj.weight": [*range(12, 16), *range(28, 32)],
    }


def test_vision_qkv_has_its_rows_in_thirds() -> None:
    parts = dict(to_native("vision_model.encoder.layers.2.attn.qkv.bias", torch.arange(12.0), GROUPED))
    stem = "model.vision_tower.encoder.layer.2.attention"
    assert {name: tensor.tolist() for name, tensor in parts.items()} == {
        f"{stem}.q_proj.bias": [0, 1, 2, 3],
        f"{stem}.k_proj.bias": [4, 5, 6, 7],
        f"{stem}.v_proj.bias": [8, 9, 10, 11],
    }


@pytest.mark.parametrize(
    ("official", "native"),
    [
        ("vision_model.embeddings.class_embedding", "model.vision_tower.embeddings.cls_token"),
        ("vision_model.encoder.layers.7.ls2", "model.vision_tower.encoder.layer.7.lambda_2"),
        ("mlp1.3.bias", "model.multi_modal_projector.linear_2.bias"),
        ("language_model.output.weight", "lm_head.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        (
            "language_model.model.layers.1.feed_forward.w3.weight",
            "model.language_model.layers.1.mlp.up_proj.weight",
        ),
        ("vision_model.head.weight", "vision_model.head.weight"),
    ],
)
def test_names_are_mapped_and_unknown_ones_kept(official: str, native: str) -> None:
    assert [name for name, _ in to_native(official, torch.zeros(1), GROUPED)] == [native]


def test_whole_checkpoints_and_parts_load_alike(folder: Path, same: Callable[..., dict[str, bool]]) -> None:
    whole = load_official(folder)
    assert all(same(whole, load_model(folder)).values())
    empty = InternVL(whole.config, whole.image_token_id)
    load_part(empty, "vision", folder)
    assert same(whole, empty) == {"vision": True, "projector": False, "language": False}
    load_part(empty, "language", folder)
    assert same(whole, empty) == {"vision": True, "projector": False, "language": True}


def test_a_sharded_checkpoint_is_the_same(folder: Path, same: Callable[..., dict[str, bool]]) -> None:
    whole = load_official(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, members in shards.items():
        save_file({name: tensors[name] for name in members}, folder / file)
    index = {"weight_map": {name: file for file, members in shards.items() for name in members}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert all(same(whole, load_official(folder)).values())


def test_unexpected_missing_and_misshaped_tensors_are_all_listed(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["mlp1.1.bias"]
    tensors["vision_model.head.weight"] = torch.zeros(2)
    tensors["optimizer.step"] = torch.zeros(1)
    tensors["vision_model.encoder.layers.0.attn.qkv.weight"] = torch.zeros(30, 7)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_official(folder)
    message = str(caught.value)
    assert "2 unexpected" in message
    assert "vision_model.head.weight" in message
    assert "optimizer.step" in message
    assert "1 missing: model.multi_modal_projector.linear_1.bias" in message
    assert "3 mis-shaped: model.vision_tower.encoder.layer.0.attention.q_proj.weight (10, 7) instead of" in message


def test_a_wqkv_that_does_not_divide_is_listed() -> None:
    parts = to_native("language_model.model.layers.0.attention.wqkv.weight", torch.zeros(30, 16), GROUPED)
    assert [(name, tuple(t.shape)) for name, t in parts] == [
        ("model.language_model.layers.0.self_attn.q_proj.weight", (30, 16))
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ps_version": "v1"}, "ps_version='v1'"),
        ({"ps_version": None}, "'ps_version'"),
        ({"select_layer": -2}, "select_layer=-2"),
        ({"vision_config__norm_type": None}, "'norm_type'"),
        ({"vision_config__qk_normalization": None}, "'qk_normalization'"),
        ({"llm_config__model_type": "phi3"}, "model_type='phi3'"),
        ({"llm_config__hidden_size": "96"}, "wrong kind"),
        ({"force_image_size": 112}, "force_image_size=112"),
        ({"llm_config__rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling.type='yarn'"),
    ],
)
def test_settings_are_never_guessed(settings: dict[str, Any], message: str, folder: Path) -> None:
    change(folder, **settings)
    with pytest.raises(CheckpointError) as caught:
        load_official(folder)
    assert message in str(caught.value)


def test_dynamic_scaling_and_the_image_token_follow_the_spec(golden: Path) -> None:
    content = json.loads((golden / "6b_internlm2" / "config.json").read_text())
    content["llm_config"]["vocab_size"] = 92_553
    config, image_token_id = from_official_config(content)
    assert (config.language.model_type, config.language.rope_scaling_factor) == ("llama", 2.0)
    assert image_token_id == 92_546
