"""Checkpoints: when, how many, how safe."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from internvl_lab.training.checkpointing import find_resume, is_readable, list_checkpoints


@pytest.fixture
def finished(tiny: ModuleType, run_dir: Path) -> Path:
    """Train 8 steps with a checkpoint every 3; return the checkpoint folder."""
    tiny.fit(run_dir, tiny.tiny_stage(8), tiny.TinyData(8, 1))
    return run_dir / "stages" / "stage2"


def test_the_newest_two_stay_and_the_last_step_is_one(finished: Path) -> None:
    assert [step for step, _ in list_checkpoints(finished)] == [6, 8]
    assert sorted(path.name for path in finished.iterdir()) == ["step_00000006.ckpt", "step_00000008.ckpt"]


def test_a_checkpoint_holds_plain_data_only(finished: Path) -> None:
    checkpoint = torch.load(find_resume(finished), weights_only=True)
    assert checkpoint["global_step"] == 8
    assert checkpoint["TinyData"] == {"next_pack": 8}
    assert {"ThroughputMonitor", "StageFreezing", "PackMonitor"} <= checkpoint["callbacks"].keys()
    assert len(checkpoint["optimizer_states"]) == 1


def test_half_written_and_damaged_files_are_passed_over(finished: Path, caplog: pytest.LogCaptureFixture) -> None:
    (finished / ".writing-step_00000009.ckpt").write_bytes(b"half")
    (finished / "step_9.ckpt").write_bytes(b"another name")
    newest = finished / "step_00000008.ckpt"
    assert find_resume(finished) == newest
    newest.write_bytes(newest.read_bytes()[:5000])
    assert find_resume(finished) == finished / "step_00000006.ckpt"
    assert "step_00000008.ckpt is damaged" in caplog.text


def test_nothing_to_resume(tmp_path: Path) -> None:
    assert find_resume(tmp_path / "missing") is None


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_other_files_are_not_readable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "step_00000001.ckpt"
    path.write_bytes(content)
    assert not is_readable(path)


def test_weights_alone_are_no_checkpoint(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "a.ckpt")
    assert not is_readable(tmp_path / "a.ckpt")


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    torch.save({"global_step": 1, "object": Path("x")}, tmp_path / "a.ckpt")
    assert not is_readable(tmp_path / "a.ckpt")


def test_a_sharded_checkpoint_needs_both_of_its_indices(tmp_path: Path) -> None:
    folder = tmp_path / "step_00000004.ckpt"
    folder.mkdir()
    (folder / ".metadata").touch()
    assert find_resume(tmp_path) is None
    (folder / "meta.pt").touch()
    assert find_resume(tmp_path) == folder


def test_a_failed_write_leaves_the_older_checkpoints(
    tiny: ModuleType, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full while step 6 is saved: step 3 stays, and the next start cleans up and goes on."""
    import lightning as L

    original = L.Trainer.save_checkpoint

    def full(self: L.Trainer, path: Path, **settings: bool) -> None:
        if self.global_step == 6:
            Path(path).write_bytes(b"half")
            raise OSError("No space left on device")
        original(self, path, **settings)

    monkeypatch.setattr(L.Trainer, "save_checkpoint", full)
    stage, folder = tiny.tiny_stage(8), run_dir / "stages" / "stage2"
    with pytest.raises(OSError, match="No space"):
        tiny.fit(run_dir, stage, tiny.TinyData(8, 1))
    assert find_resume(folder) == folder / "step_00000003.ckpt"
    assert len(list(folder.glob(".writing-*"))) == 1
    monkeypatch.undo()
    tiny.fit(run_dir, stage, tiny.TinyData(8, 1))
    assert [step for step, _ in list_checkpoints(folder)] == [6, 8]
    assert not list(folder.glob(".writing-*"))


def test_steps_are_counted_not_packs(tiny: ModuleType, run_dir: Path) -> None:
    tiny.fit(run_dir, tiny.tiny_stage(4, checkpoint_every=2), tiny.TinyData(4, 3))
    assert [step for step, _ in list_checkpoints(run_dir / "stages" / "stage2")] == [2, 4]
