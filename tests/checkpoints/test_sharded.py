"""Sharded checkpoints: weights without optimizer, and metadata that can run nothing."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

from internvl_lab.checkpoints.sharded import ShardedFolder
from internvl_lab.errors import CheckpointError

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


class Evil:
    """Touch a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


def test_weights_come_without_the_optimizer(tmp_path: Path) -> None:
    weights = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}
    state = {"state_dict": weights, "optimizer_0": {"state": {"a": torch.zeros(2, 3), "step": 3}}}
    dcp.save(state, checkpoint_id=tmp_path, no_dist=True)
    folder = ShardedFolder(tmp_path)
    assert {name: (tuple(s.shape), s.dtype, s.device.type) for name, s in folder.shapes().items()} == {
        "a": ((2, 3), torch.float32, "meta"),
        "b": ((4,), torch.bfloat16, "meta"),
    }
    assert all(torch.equal(folder.read(name), tensor) for name, tensor in weights.items())


def test_metadata_runs_no_code(tmp_path: Path) -> None:
    (tmp_path / ".metadata").write_bytes(pickle.dumps(Evil(tmp_path / "run")))
    with pytest.raises(CheckpointError, match=r"\.metadata cannot be read: .*has no place"):
        ShardedFolder(tmp_path).shapes()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["os.system", "io.open", "os"])
def test_modules_reached_through_torch_are_refused(name: str, tmp_path: Path) -> None:
    """A pickled name may hold dots, and torch's modules import dangerous ones."""
    module = b"torch.distributed.checkpoint.filesystem"
    stored = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(text)]) + text for text in (module, name.encode())) + b"\x93."
    (tmp_path / ".metadata").write_bytes(stored)
    with pytest.raises(CheckpointError, match="has no place"):
        ShardedFolder(tmp_path).shapes()


def test_other_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".metadata").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointError, match="holds no metadata"):
        ShardedFolder(tmp_path).shapes()
