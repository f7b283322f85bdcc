"""Reading and copying tensors: everything that does not fit is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from internvl_lab.checkpoints.tensors import (
    copy_into,
    has_weights,
    native_tensors,
    sha256_of,
    weight_files,
)
from internvl_lab.constants import PARTS
from internvl_lab.errors import CheckpointError
from internvl_lab.models import InternVL

MakeModel = Callable[..., InternVL]


def write_shards(folder: Path) -> None:
    save_file({"a": torch.ones(2), "b": torch.zeros(3)}, folder / "one.safetensors")
    save_file({"c": torch.full((1,), 7.0)}, folder / "two.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shards_are_read_through_their_index(tmp_path: Path) -> None:
    assert not has_weights(tmp_path)
    write_shards(tmp_path)
    assert has_weights(tmp_path)
    assert [file.name for file in weight_files(tmp_path)] == ["one.safetensors", "two.safetensors"]
    assert weight_files(tmp_path / "one.safetensors") == [tmp_path / "one.safetensors"]


def test_a_missing_shard_or_folder_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"missing: two\.safetensors"):
        weight_files(tmp_path)
    with pytest.raises(CheckpointError, match=r"nowhere.*missing: model\.safetensors"):
        weight_files(tmp_path / "nowhere")


@pytest.mark.parametrize("places", [["a"], {"a": 1}])
def test_a_malformed_index_is_one_error(places: object, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(CheckpointError, match=r"index\.json: weight_map is no mapping"):
        weight_files(tmp_path)


def test_two_sets_of_weights_in_one_folder_are_refused(tmp_path: Path) -> None:
    write_shards(tmp_path)
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="holds both"):
        weight_files(tmp_path)


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(100)}, file)
    assert sha256_of(tmp_path) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_copying_converts_the_dtype_and_touches_only_its_parts(
    make_model: MakeModel, same: Callable[..., dict]
) -> None:
    source, target = make_model(seed=1), make_model(seed=2)
    tensors = {name: tensor.double() for name, tensor in native_tensors(source, ("vision",)).items()}
    copy_into(target, tensors.items(), ("vision",), "test")
    assert same(source, target) == {"vision": True, "projector": False, "language": False}


def test_every_fault_is_listed(make_model: MakeModel) -> None:
    model = make_model()
    tensors = {name: tensor.clone() for name, tensor in native_tensors(model, PARTS).items()}
    del tensors["lm_head.weight"]
    tensors["model.extra"] = torch.zeros(1)
    tensors["model.language_model.norm.weight"] = torch.zeros(31)
    with pytest.raises(CheckpointError) as caught:
        copy_into(model, tensors.items(), PARTS, "folder X")
    assert str(caught.value) == (
        "folder X does not fit: 1 unexpected: model.extra; 1 missing: lm_head.weight; "
        "1 mis-shaped: model.language_model.norm.weight (31,) instead of (32,)"
    )


def test_a_long_list_is_counted_exactly_and_cut(make_model: MakeModel) -> None:
    tensors = {f"model.extra.{index:03d}": torch.zeros(1) for index in range(60)}
    with pytest.raises(CheckpointError, match=r"60 unexpected.*extra\.039, and 20 more"):
        copy_into(make_model(), tensors.items(), (), "folder X")
