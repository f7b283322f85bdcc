"""What a stage trains, and the proof that the rest stands still."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning as L
import pytest
import torch

from internvl_lab.config import LoraConfig
from internvl_lab.errors import CheckpointError, InternVLLabError
from internvl_lab.training.freezing import apply_stage, describe_parts, eval_modules, fingerprint, verify

PART_OF = {"vision_tower": "vision", "multi_modal_projector": "projector"}
STAGES = {"stage1": ("projector",), "stage1_5": ("vision", "projector"), "stage2": ("vision", "projector", "language")}


def part_of(name: str) -> str:
    """Return the part of a tensor."""
    return PART_OF.get(name.split(".", maxsplit=1)[0], "language")


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_moves_its_parts_and_no_bit_of_another(tiny: ModuleType, run_dir: Path, name: str) -> None:
    stage = tiny.tiny_stage(4, name=name, trainable=STAGES[name])
    before = tiny.tiny_model().state_dict()
    after = tiny.fit(run_dir, stage, tiny.TinyData(4, 2)).model.state_dict()
    moved = {part_of(key) for key in before if not torch.equal(before[key], after[key])}
    assert moved == set(STAGES[name])


def test_one_line_per_part(tiny: ModuleType) -> None:
    model = tiny.tiny_model()
    apply_stage(model, tiny.tiny_stage(1, trainable=("projector",)))
    vision, projector, language = describe_parts(model)
    total = sum(p.numel() for p in model.vision_tower.parameters())
    assert vision.split()[:5] == ["vision", "Frozen", "0", "of", f"{total:,}"]
    assert projector.split()[1] == "TRAINABLE"
    assert projector.split()[2] == projector.split()[4]
    assert language.split()[:2] == ["language", "Frozen"]


def test_the_lines_are_logged(tiny: ModuleType, run_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="internvl_lab"):
        tiny.fit(run_dir, tiny.tiny_stage(1, trainable=("projector",)), tiny.TinyData(1, 1))
    assert "vision     Frozen" in caplog.text
    assert "projector  TRAINABLE" in caplog.text


class Modes(L.Callback):
    """Call train(), as careless code does, and note the modes in the forward pass."""

    def __init__(self) -> None:
        self.seen: list[tuple[bool, bool, bool]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        model = pl_module.model
        self.seen.append(tuple(m.training for m in (model.vision_tower, model.multi_modal_projector, model.lm_head)))
        pl_module.train()


@pytest.mark.parametrize(("frozen_eval", "expected"), [(True, (False, True, False)), (False, (True, True, True))])
def test_frozen_parts_run_in_eval_mode(
    tiny: ModuleType, run_dir: Path, frozen_eval: bool, expected: tuple[bool, ...]
) -> None:
    modes = Modes()
    stage = tiny.tiny_stage(3, trainable=("projector",), frozen_eval=frozen_eval)
    tiny.fit(run_dir, stage, tiny.TinyData(3, 1, val_packs=1), callbacks=[modes])
    assert modes.seen == [expected] * 3


def test_drop_path_and_checkpointing_are_set(tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.tiny_model()
    calls: dict[str, Any] = {}
    monkeypatch.setattr(model, "set_drop_path", lambda rate: calls.update(rate=rate))
    monkeypatch.setattr(model, "set_gradient_checkpointing", lambda parts: calls.update(parts=parts))
    apply_stage(model, tiny.tiny_stage(1, drop_path_rate=0.4, gradient_checkpointing=("vision",)))
    assert calls == {"rate": 0.4, "parts": ("vision",)}


def test_a_recomputed_frozen_language_model_stays_in_train_mode(tiny: ModuleType) -> None:
    """Transformers recomputes activations in train mode only; without this, stage 1 would keep them all."""
    model = tiny.tiny_model()
    stage = tiny.tiny_stage(1, trainable=("projector",), gradient_checkpointing=("language",))
    assert eval_modules(model, stage) == [model.vision_tower]
    apply_stage(model, stage)
    assert model.language_model.training and not model.vision_tower.training


def test_verify_names_a_parameter_that_should_be_frozen(tiny: ModuleType) -> None:
    model = tiny.tiny_model()
    stage = tiny.tiny_stage(1, trainable=("projector",))
    apply_stage(model, stage)
    optimizer = torch.optim.SGD(model.multi_modal_projector.parameters(), lr=1.0)
    verify(model, stage, [optimizer])
    model.lm_head.weight.requires_grad_(True)
    with pytest.raises(InternVLLabError, match=r"lm_head\.weight must be frozen but is not"):
        verify(model, stage, [optimizer])


def test_verify_looks_into_the_optimizer(tiny: ModuleType) -> None:
    model = tiny.tiny_model()
    stage = tiny.tiny_stage(1, trainable=("projector",))
    apply_stage(model, stage)
    with pytest.raises(InternVLLabError, match="must be frozen but is not"):
        verify(model, stage, [torch.optim.SGD(model.parameters(), lr=1.0)])
    some = list(model.multi_modal_projector.parameters())[:-1]
    with pytest.raises(InternVLLabError, match=r"projector: .* must train but does not"):
        verify(model, stage, [torch.optim.SGD(some, lr=1.0)])


def test_a_frozen_weight_that_changes_in_training_is_found(tiny: ModuleType, run_dir: Path) -> None:
    class Vandal(L.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            with torch.no_grad():
                pl_module.model.vision_tower.embeddings.cls_token[0, 0, 0] += 1e-7

    stage = tiny.tiny_stage(2, name="stage1", trainable=("projector",))
    with pytest.raises(CheckpointError, match="frozen part 'vision' has changed during training"):
        tiny.fit(run_dir, stage, tiny.TinyData(2, 1), callbacks=[Vandal()])


def test_restored_frozen_weights_are_verified(tiny: ModuleType, run_dir: Path) -> None:
    """A checkpoint whose frozen part was swapped, by hand or by a bug, must not be trained on."""
    stage = tiny.tiny_stage(6, name="stage1", trainable=("projector",))
    tiny.fit(run_dir, stage, tiny.TinyData(6, 1))
    folder = run_dir / "stages" / "stage1"
    (folder / "step_00000006.ckpt").unlink()
    path = folder / "step_00000003.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["model.lm_head.weight"][0, 0] += 1.0
    torch.save(checkpoint, path)
    with pytest.raises(CheckpointError, match="'language' has changed after the checkpoint was restored"):
        tiny.fit(run_dir, stage, tiny.TinyData(6, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.uint8])
def test_fingerprint_sees_one_bit_and_the_place(dtype: torch.dtype) -> None:
    tensors = [torch.ones(5, dtype=dtype), torch.zeros(3, dtype=dtype)]
    original = fingerprint(tensors)
    assert fingerprint([t.clone() for t in tensors]) == original
    assert fingerprint(tensors[::-1]) != original
    tensors[0].view(torch.uint8)[0] ^= 1
    assert fingerprint(tensors) != original


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.uint8])
def test_fingerprint_sees_swapped_elements(dtype: torch.dtype) -> None:
    tensor = torch.arange(24).to(dtype).view(4, 6)
    original = fingerprint([tensor])
    for i, j in ((0, 1), (3, 20), (22, 23)):
        swapped = tensor.clone().flatten()
        swapped[[i, j]] = swapped[[j, i]]
        assert fingerprint([swapped.view(4, 6)]) != original


def test_fingerprint_sees_the_highest_bit() -> None:
    assert fingerprint([torch.tensor([1.0, -2.0], dtype=torch.float64)]) != fingerprint(
        [torch.tensor([1.0, 2.0], dtype=torch.float64)]
    )


def test_fingerprint_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [torch.randn(11, 3), torch.empty(0), torch.tensor(2.0)]
    whole = fingerprint(tensors)
    monkeypatch.setattr("internvl_lab.training.freezing._CHUNK", 4)
    assert fingerprint(tensors) == whole


def test_fingerprint_of_a_sharded_tensor_is_that_of_the_whole() -> None:
    class Shard(torch.Tensor):
        def full_tensor(self) -> torch.Tensor:
            return torch.arange(6.0)

    shard = torch.arange(3.0).as_subclass(Shard)
    assert fingerprint([shard]) == fingerprint([torch.arange(6.0)])


LORA = LoraConfig(parts=("vision", "language"), rank=2)


def test_lora_moves_adapters_and_no_bit_of_the_weights_beside_them(tiny: ModuleType, run_dir: Path) -> None:
    stage = tiny.tiny_stage(4, trainable=(), lora=LORA, drop_path_rate=0.0)
    before = tiny.tiny_model().state_dict()
    after = tiny.fit(run_dir, stage, tiny.TinyData(4, 2)).model.state_dict()
    kept = {name.replace(".base_layer", ""): tensor for name, tensor in after.items() if "lora_" not in name}
    assert kept.keys() == before.keys()
    assert all(torch.equal(kept[name], tensor) for name, tensor in before.items())
    moved = [tensor for name, tensor in after.items() if "lora_B" in name]
    assert len(moved) == 2 * (6 + 7) and all(tensor.abs().sum() > 0 for tensor in moved)


def test_a_lora_run_resumes_with_the_same_bits(tiny: ModuleType, tmp_path: Path) -> None:
    stage = tiny.tiny_stage(6, trainable=("projector",), lora=LORA, drop_path_rate=0.0)
    whole = tiny.fit(tmp_path / "whole", stage, tiny.TinyData(6, 1)).model.state_dict()
    tiny.fit(tmp_path / "cut", stage, tiny.TinyData(6, 1))
    (tmp_path / "cut" / "stages" / "stage2" / "step_00000006.ckpt").unlink()
    resumed = tiny.fit(tmp_path / "cut", stage, tiny.TinyData(6, 1)).model.state_dict()
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_a_part_with_adapters_says_so_and_keeps_its_dropout(tiny: ModuleType) -> None:
    model = tiny.tiny_model()
    stage = tiny.tiny_stage(1, trainable=("projector",), lora=LoraConfig(parts=("language",), rank=2))
    apply_stage(model, stage)
    vision, projector, language = describe_parts(model)
    assert [line.split()[1] for line in (vision, projector, language)] == ["Frozen", "TRAINABLE", "LoRA"]
    assert language.split()[2] == f"{sum(p.numel() for p in model.parameters() if p.ndim == 2 and 2 in p.shape):,}"
    assert model.language_model.training and not model.vision_tower.training
