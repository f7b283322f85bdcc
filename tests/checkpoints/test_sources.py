"""One reader: every kind of source gives the same native tensors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, LlamaConfig, LlamaForCausalLM

from internvl_lab.checkpoints import convert, initialise, load_model, resolve_source, save_model
from internvl_lab.checkpoints.sources import open_source
from internvl_lab.checkpoints.tensors import native_tensors
from internvl_lab.config import InitConfig, ModelConfig
from internvl_lab.constants import PARTS
from internvl_lab.errors import CheckpointError
from internvl_lab.models import InternVL

MakeModel = Callable[..., InternVL]
Same = Callable[[InternVL, InternVL], dict[str, bool]]


def holds(path: Path, model: InternVL) -> bool:
    """Say whether a source gives exactly the model's tensors, with the shapes it announced."""
    source, expected = open_source(path), native_tensors(model, PARTS)
    shapes = source.shapes(PARTS)
    found = dict(source.tensors(PARTS))
    assert {key: tensor.shape for key, tensor in found.items()} == {key: shape.shape for key, shape in shapes.items()}
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


def write_run(run: Path, model: InternVL, sharded: bool) -> Path:
    """Write a checkpoint as a stage does: a LightningModule's names, and the run's config.yaml."""
    checkpoint = run / "stages" / "stage1" / "checkpoints" / "step_00000001.ckpt"
    checkpoint.parent.mkdir(parents=True)
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if sharded:
        dcp.save({"state_dict": state}, checkpoint_id=checkpoint, no_dist=True)
        torch.save({"global_step": 1}, checkpoint / "meta.pt")
    else:
        torch.save({"state_dict": state, "global_step": 1}, checkpoint)
    (run / "config.yaml").write_text(yaml.safe_dump({"model": asdict(model.config), "tiling": {}, "data": {}}))
    return checkpoint


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_checkpoints_of_a_stage(
    sharded: bool, config: ModelConfig, make_model: MakeModel, same: Same, tmp_path: Path
) -> None:
    model = make_model(config)
    checkpoint = write_run(tmp_path / "run", model, sharded)
    assert holds(checkpoint, model)
    target = make_model(config, seed=5)
    initialise(target, InitConfig(vision=str(checkpoint)))
    assert same(model, target) == {"vision": True, "projector": False, "language": False}
    out = convert([checkpoint], tmp_path / "out", "official")
    assert all(same(model, load_model(out)).values())
    assert load_model(out).image_token_id == 293


def test_transformers_folders_new_and_old(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    folder = save_model(model, tmp_path / "ours", {})
    AutoModelForImageTextToText.from_pretrained(folder).save_pretrained(tmp_path / "theirs", max_shard_size="100KB")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").is_file()
    assert holds(tmp_path / "theirs", model)
    old = Path(shutil.copytree(folder, tmp_path / "old"))
    save_file(
        {older_name(key): tensor for key, tensor in load_file(folder / "model.safetensors").items()},
        old / "model.safetensors",
    )
    assert holds(old, model)


def older_name(key: str) -> str:
    """Return a key as transformers 4.52 wrote it."""
    if key.startswith("lm_head."):
        return f"language_model.{key}"
    key = key.removeprefix("model.")
    return key.replace("language_model.", "language_model.model.", 1) if key.startswith("language_model.") else key


def test_the_weights_of_a_run_and_an_asset(make_model: MakeModel, tmp_path: Path) -> None:
    assert open_source(resolve_source("asset:qwen2_5_0_5b")).parts == ("language",)
    assert open_source(resolve_source("asset:quickstart")).parts == PARTS


def test_a_llama_alone_has_its_own_names(tmp_path: Path) -> None:
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    )
    theirs.save_pretrained(tmp_path)
    source = open_source(tmp_path)
    found = dict(source.tensors(PARTS))
    assert source.parts == ("language",)
    assert torch.equal(
        found["model.language_model.layers.0.mlp.up_proj.weight"], theirs.model.layers[0].mlp.up_proj.weight
    )
    assert torch.equal(found["lm_head.weight"][:50], theirs.lm_head.weight)
    assert found["lm_head.weight"].shape == (59, 16)


def test_a_tensor_stored_twice_is_reported(golden: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(golden / "300m_qwen2", tmp_path / "source"))
    tensors: dict[str, Tensor] = load_file(source / "model.safetensors")
    tensors["lm_head.weight"] = torch.zeros(300, 96)
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 unexpected: .*a second lm_head\.weight"):
        load_model(source)


def test_a_misshaped_table_of_a_plain_language_model_is_listed(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llm")
    file = tmp_path / "llm" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"vocab_size": 60}))
    with pytest.raises(CheckpointError, match=r"2 mis-shaped: .*\(50, 16\) instead of \(69, 16\)"):
        convert([tmp_path / "llm"], tmp_path / "out", "native")
