"""Files of tensors: shapes without data, one tensor at a time, no code ever run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import Tensor

from internvl_lab.checkpoints import storage
from internvl_lab.checkpoints.storage import holds_weights, open_files, refuse_pickle
from internvl_lab.errors import CheckpointError, MissingWeightsError

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}


def write(kind: str, folder: Path) -> Path:
    """Write TENSORS as one kind of source and return what to open."""
    if kind == "folder":
        save_file(TENSORS, folder / "model.safetensors")
        return folder
    if kind == "file":
        save_file(TENSORS, folder / "mlp.safetensors")
        return folder / "mlp.safetensors"
    if kind == "lightning":
        torch.save({"state_dict": TENSORS, "global_step": 3}, folder / "step_00000003.ckpt")
        return folder / "step_00000003.ckpt"
    if kind == "sharded":
        state = {"state_dict": TENSORS, "optimizer_0": {"exp_avg": torch.zeros(3)}}
        dcp.save(state, checkpoint_id=folder / "step_00000003.ckpt", no_dist=True)
        return folder / "step_00000003.ckpt"
    if kind == "old_pickle":
        torch.save(TENSORS, folder / "mlp.pt", _use_new_zipfile_serialization=False)
        return folder / "mlp.pt"
    for name, tensor in TENSORS.items():
        torch.save({name: tensor}, folder / f"{name}.bin")
    index = {"weight_map": {name: f"{name}.bin" for name in TENSORS}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("kind", ["folder", "file", "lightning", "sharded", "old_pickle", "sharded_pickle"])
def test_every_kind_gives_shapes_first_and_then_tensors(kind: str, tmp_path: Path) -> None:
    path = write(kind, tmp_path)
    assert holds_weights(path)
    files = open_files(path, allow_pickle="pickle" in kind)
    shapes = {name: shape for file in files for name, shape in file.shapes().items()}
    assert {name: (tuple(s.shape), s.dtype, s.device.type) for name, s in shapes.items()} == {
        name: (tuple(t.shape), t.dtype, "meta") for name, t in TENSORS.items()
    }
    found: dict[str, Tensor] = {name: file.read(name) for file in files for name in file.shapes()}
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())


def test_a_mapped_file_is_mapped_anew_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = open_files(write("lightning", tmp_path))
    monkeypatch.setattr(storage, "_REMAP_BYTES", 20)
    loads: list[Path] = []
    original = storage._load
    monkeypatch.setattr(storage, "_load", lambda path: loads.append(path) or original(path))
    for _ in range(3):
        assert torch.equal(file.read("a"), TENSORS["a"])
    assert len(loads) == 2


@pytest.mark.parametrize("kind", ["old_pickle", "sharded_pickle"])
def test_pickle_files_are_refused_with_the_command_that_converts_them(kind: str, tmp_path: Path) -> None:
    path = write(kind, tmp_path)
    for refuse in (open_files, refuse_pickle):
        with pytest.raises(CheckpointError, match=r"convert --in .* --allow-pickle") as caught:
            refuse(path)
        assert "\n" not in str(caught.value)
    refuse_pickle(write("folder", tmp_path))  # safetensors beside them are enough


def test_what_holds_no_tensors_is_named(tmp_path: Path) -> None:
    assert not holds_weights(tmp_path)
    with pytest.raises(MissingWeightsError, match=r"neither model\.safetensors"):
        open_files(tmp_path)
    with pytest.raises(MissingWeightsError, match="does not exist"):
        open_files(tmp_path / "nowhere.ckpt")
    (tmp_path / "weights.gguf").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"known are \.safetensors"):
        open_files(tmp_path / "weights.gguf")
    (tmp_path / "broken.ckpt").write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match="no plain tensors"):
        open_files(tmp_path / "broken.ckpt")
    torch.save({"weights": TENSORS}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="no state_dict of a checkpoint"):
        open_files(tmp_path / "other.ckpt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="no mapping of names to tensors"):
        open_files(tmp_path / "list.pt", allow_pickle=True)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(100)}, file)
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is no readable"):
        open_files(tmp_path)[0].shapes()


def test_a_quantised_file_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(4).to(torch.float8_e4m3fn)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="a has dtype F8_E4M3"):
        open_files(tmp_path)[0].shapes()
