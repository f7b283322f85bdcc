"""An adapter that names its base is a source of weights like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from internvl_lab.checkpoints import convert, load_model, load_processor, resolve_source, save_model
from internvl_lab.checkpoints.adapters import copy_adapter
from internvl_lab.checkpoints.base import ADAPTER_CONFIG_FILE, ADAPTER_FILE, BASE_KEY, asset_folder, base_of
from internvl_lab.checkpoints.tensors import sha256_of, weight_files
from internvl_lab.errors import CheckpointError, MissingWeightsError

KEY = "model.language_model.layers.0.self_attn.q_proj.weight"
FIELDS = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, BASE_KEY: None}


@pytest.fixture
def base(config, make_model, tmp_path):
    """Give whole weights."""
    return save_model(make_model(config), tmp_path / "base", {})


def write_adapter(folder: Path, key: str, shape: tuple[int, int], **fields) -> Path:
    """Write an adapter of rank 2 for one weight, as peft does."""
    folder.mkdir()
    torch.manual_seed(3)
    stem = f"base_model.model.{key.removesuffix('.weight')}.lora_"
    a, b = torch.randn(2, shape[1]), torch.randn(shape[0], 2)
    save_file({f"{stem}A.weight": a, f"{stem}B.weight": b}, folder / ADAPTER_FILE)
    (folder / ADAPTER_CONFIG_FILE).write_text(json.dumps(FIELDS | fields))
    return folder


@pytest.fixture
def adapter(base, tmp_path):
    """Give a bf16 adapter that names its base."""
    shape = tuple(load_file(base / "model.safetensors")[KEY].shape)
    return copy_adapter(write_adapter(tmp_path / "fp32", KEY, shape), tmp_path / "adapter", str(base))


def test_weights_are_the_base_s_with_the_adapter_added(base, adapter, tmp_path):
    before, stored = load_file(base / "model.safetensors"), load_file(adapter / ADAPTER_FILE)
    a, b = (next(t for name, t in stored.items() if f"lora_{side}" in name) for side in "AB")
    assert a.dtype == torch.bfloat16
    expected = before[KEY] + 2.0 * (b.float() @ a.float())
    assert resolve_source(str(adapter)) == adapter
    loaded = load_model(adapter).state_dict()
    assert torch.equal(loaded[KEY.removeprefix("model.")], expected)
    merged = load_file(convert([adapter], tmp_path / "merged", "native") / "model.safetensors")
    assert torch.equal(merged[KEY], expected)
    assert all(torch.equal(merged[name], tensor) for name, tensor in before.items() if name != KEY)


def test_its_hash_counts_both(base, adapter):
    assert [path.parent for path in weight_files(adapter)] == [base, adapter]
    assert sha256_of(adapter) != sha256_of(base)


def test_the_processor_is_the_base_s(tmp_path):
    folder = write_adapter(tmp_path / "adapter", KEY, (8, 8), **{BASE_KEY: "asset:quickstart"})
    assert base_of(folder) == asset_folder("asset:quickstart")
    template, tiling = load_processor(folder)
    expected_template, expected_tiling = load_processor(asset_folder("asset:quickstart"))
    assert (template.fingerprint, tiling) == (expected_template.fingerprint, expected_tiling)


@pytest.mark.parametrize("named", [None, "", "/nowhere/at/all", "asset:nothing"])
def test_without_a_base_on_this_machine_it_is_no_source(tmp_path, named):
    folder = write_adapter(tmp_path / "adapter", KEY, (8, 8), **{BASE_KEY: named})
    assert base_of(folder) == folder
    with pytest.raises(MissingWeightsError, match="holds a LoRA adapter and no weights: merge it"):
        resolve_source(str(folder))


def test_an_adapter_of_another_model_is_refused(base, tmp_path):
    other = write_adapter(tmp_path / "other", KEY.replace("layers.0", "layers.77"), (8, 8), **{BASE_KEY: str(base)})
    with pytest.raises(CheckpointError, match=r"1 adapters belong to weights that .*base lacks: .*layers\.77"):
        load_model(other)
