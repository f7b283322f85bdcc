"""The batch: its counts, and pinning of every tensor and nothing else."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from internvl_lab.constants import IGNORE_INDEX
from internvl_lab.data.batch import Batch


@pytest.fixture
def batch() -> Batch:
    return Batch(
        input_ids=torch.arange(5)[None],
        labels=torch.arange(5)[None],
        position_ids=torch.tensor([[0, 1, 0, 1, 2]]),
        cu_seqlens=torch.tensor([0, 2, 5], dtype=torch.int32),
        max_seqlen=3,
        loss_weights=torch.ones(1, 5),
        pixel_values=torch.zeros(4, 3, 2, 2, dtype=torch.uint8),
        tiles_per_sample=torch.tensor([4, 0], dtype=torch.int32),
        source_ids=torch.zeros(2, dtype=torch.int32),
        sample_keys=["a", "b"],
        pack_number=7,
        bad_samples=[("c", "corrupt_image", "why")],
    )


def test_counts(batch: Batch) -> None:
    assert (batch.num_tokens, batch.num_tiles) == (5, 4)


def test_locate_finds_visual_tokens_and_labels(batch: Batch) -> None:
    assert batch.visual_positions is None
    assert batch.supervised_rows is None
    batch.input_ids[0, 1], batch.labels[0, 0], batch.labels[0, 3] = 3, IGNORE_INDEX, IGNORE_INDEX
    located = batch.locate(3)
    assert located.visual_positions is not None
    assert located.supervised_rows is not None
    assert located.visual_positions.tolist() == [1, 3]
    assert located.supervised_rows.tolist() == [1, 2, 4]
    assert located.input_ids is batch.input_ids


def test_pinning_keeps_every_field(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch.locate(3)
    pinned: list[int] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(id(tensor))
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    copy = batch.pin_memory()
    tensors = [f.name for f in fields(batch) if isinstance(getattr(batch, f.name), torch.Tensor)]
    assert sorted(pinned) == sorted(id(getattr(batch, name)) for name in tensors) and len(tensors) == 10
    for field in fields(batch):
        before, after = getattr(batch, field.name), getattr(copy, field.name)
        assert torch.equal(before, after) if field.name in tensors else before == after
