"""The loss of a step: hand-computed tables, sums over packs and ranks, sources."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
import torch

from internvl_lab.constants import IGNORE_INDEX
from internvl_lab.data.batch import Batch
from internvl_lab.data.weights import token_weights
from internvl_lab.training.losses import COUNTS, StepResult, StepTotals

LOSSES = {"long": [1.0, 2.0, 3.0, 4.0], "short": [5.0]}
"""Cross entropies of two answers, of 4 tokens and of 1."""


def pack(tiny: ModuleType, names: list[str], averaging: str) -> tuple[Batch, torch.Tensor, torch.Tensor]:
    """Return a pack of the named answers, its supervised rows, and their losses from the table."""
    samples = []
    for name in names:
        labels = np.array([IGNORE_INDEX, *[9] * len(LOSSES[name]), IGNORE_INDEX])
        weights = token_weights(labels, np.where(labels == IGNORE_INDEX, -1, 0), averaging, "sample")
        pixels = np.zeros((1, 3, tiny.TILE, tiny.TILE), np.uint8)
        samples.append({"ids": np.full(len(labels), 9), "labels": labels, "weights": weights, "pixels": pixels})
    batch = tiny.make_batch(samples, names)
    batch.source_ids = torch.tensor([list(LOSSES).index(name) for name in names], dtype=torch.int32)
    rows = (batch.labels[0] != IGNORE_INDEX).nonzero().flatten()
    return batch, rows, torch.tensor([loss for name in names for loss in LOSSES[name]])


def finish(totals: StepTotals, ranks: int = 1) -> StepResult:
    """Read the result as if all ranks had the same packs."""
    return totals.result(totals.reduce(lambda tensor: tensor * ranks).tolist(), grad_norm=1.0)


@pytest.mark.parametrize(
    ("averaging", "expected"),
    [
        ("token", (1 + 2 + 3 + 4 + 5) / 5),  # every token weighs 1
        ("sample", (2.5 + 5) / 2),  # every answer weighs 1
        ("square", (0.5 * (1 + 2 + 3 + 4) + 1 * 5) / (4 * 0.5 + 1)),  # w = 1 / sqrt(x)
    ],
)
@pytest.mark.parametrize("packs", [[["long", "short"]], [["long"], ["short"]]])
def test_loss_equals_the_hand_computed_table(
    tiny: ModuleType, averaging: str, expected: float, packs: list[list[str]]
) -> None:
    totals = StepTotals(("a", "b"))
    for names in packs:
        totals.add(*pack(tiny, names, averaging))
    assert finish(totals).loss == pytest.approx(expected, rel=1e-12)


def test_what_is_back_propagated_is_the_unnormalised_sum(tiny: ModuleType) -> None:
    batch, rows, losses = pack(tiny, ["long", "short"], "square")
    losses.requires_grad_()
    total = StepTotals().add(batch, rows, losses)
    total.backward()
    assert total.item() == pytest.approx(10.0)
    assert losses.grad is not None
    assert losses.grad.tolist() == pytest.approx([0.5, 0.5, 0.5, 0.5, 1.0])


def test_sources_have_their_own_normalised_losses(tiny: ModuleType) -> None:
    totals = StepTotals(("a", "b", "c"))
    totals.add(*pack(tiny, ["long", "short"], "square"))
    assert finish(totals).source_losses == pytest.approx({"a": 2.5, "b": 5.0})


def test_ranks_sum_counts_but_not_the_loss(tiny: ModuleType) -> None:
    totals = StepTotals(("a", "b"))
    totals.add(*pack(tiny, ["long", "short"], "token"), flops=11.0)
    one, two = finish(totals), finish(totals, ranks=2)
    assert one.loss == two.loss
    assert one.counts == {
        "tokens": 9, "supervised_tokens": 5, "samples": 2, "tiles": 2, "packs": 1, "bad_samples": 0, "flops": 11.0,
    }  # fmt: skip
    assert two.counts == {name: 2 * one.counts[name] for name in COUNTS}


def test_a_step_without_labels_has_no_loss(tiny: ModuleType) -> None:
    batch, _, _ = pack(tiny, ["long"], "token")
    totals = StepTotals(("a", "b"))
    totals.add(batch, torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    result = finish(totals)
    assert math.isnan(result.loss)
    assert result.weight == 0
    assert result.source_losses == {}
    assert not result.finite


def test_reset_forgets_the_step_before(tiny: ModuleType) -> None:
    totals = StepTotals()
    totals.add(*pack(tiny, ["long"], "token"))
    totals.reset()
    totals.add(*pack(tiny, ["short"], "token"))
    assert finish(totals).loss == 5.0
    assert [keys for keys, _ in totals.packs] == [["short"]]


def test_a_step_without_a_pack_is_a_bug() -> None:
    with pytest.raises(RuntimeError, match="without a pack"):
        StepTotals().reduce(lambda tensor: tensor)


def test_counts_stay_exact_beyond_float32(tiny: ModuleType) -> None:
    batch, rows, losses = pack(tiny, ["short"], "token")
    totals = StepTotals()
    totals.add(batch, rows, losses, flops=2.0**24)
    totals.add(batch, rows, losses, flops=1.0)
    assert finish(totals).counts["flops"] == 2**24 + 1
