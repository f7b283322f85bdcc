"""The loss head equals full logits, whole and in chunks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from internvl_lab.constants import IGNORE_INDEX
from internvl_lab.models.loss_head import supervised_losses

VOCAB = 50


def problem() -> tuple[nn.Linear, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    head = nn.Linear(16, VOCAB, bias=False)
    hidden = torch.randn(1, 40, 16, generator=generator).requires_grad_()
    labels = torch.randint(0, VOCAB, (1, 40), generator=generator)
    labels[0, torch.rand(40, generator=generator) < 0.6] = IGNORE_INDEX
    return head, hidden, labels


@pytest.mark.parametrize("rows_at_once", [1, 4, 7, 1000])
def test_losses_and_gradients_equal_those_of_full_logits(rows_at_once: int) -> None:
    head, hidden, labels = problem()
    weights = torch.rand(40)
    full = F.cross_entropy(head(hidden[0]), labels[0], reduction="none", ignore_index=IGNORE_INDEX)
    (full * weights).sum().backward()
    expected = [hidden.grad, head.weight.grad]
    hidden.grad = head.weight.grad = None

    result = supervised_losses(head, hidden, labels, VOCAB, rows_at_once * VOCAB * 4)
    assert torch.equal(result.rows, (labels[0] != IGNORE_INDEX).nonzero().flatten())
    assert result.losses.dtype == torch.float32
    torch.testing.assert_close(result.losses, full[result.rows], rtol=1e-6, atol=1e-6)
    (result.losses * weights[result.rows]).sum().backward()
    for gradient, wanted in zip([hidden.grad, head.weight.grad], expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("budget", [12 * VOCAB * 4, 1 << 30])
def test_the_byte_budget_bounds_the_rows_that_see_the_head_at_once(budget: int) -> None:
    head, hidden, labels = problem()
    seen: list[int] = []
    head.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    supervised_losses(head, hidden, labels, VOCAB, budget)
    assert sum(seen) == int((labels != IGNORE_INDEX).sum())
    assert max(seen) * VOCAB * 4 <= budget
    assert (len(seen) == 1) == (budget == 1 << 30)


def test_bf16_hidden_states_give_fp32_losses() -> None:
    head, hidden, labels = problem()
    result = supervised_losses(head.bfloat16(), hidden.bfloat16(), labels, VOCAB, 1 << 30)
    logits = head(hidden.bfloat16()[0]).float()
    expected = F.cross_entropy(logits, labels[0], reduction="none", ignore_index=IGNORE_INDEX)[result.rows]
    assert result.losses.dtype == torch.float32
    torch.testing.assert_close(result.losses, expected, rtol=1e-6, atol=1e-6)


def test_a_pack_without_labels_has_no_rows_and_zero_gradients() -> None:
    head, hidden, labels = problem()
    result = supervised_losses(head, hidden, torch.full_like(labels, IGNORE_INDEX), VOCAB, 1 << 30)
    assert result.rows.shape == result.losses.shape == (0,)
    result.losses.sum().backward()
    assert not hidden.grad.any()
    assert not head.weight.grad.any()


@pytest.mark.parametrize("rows_at_once", [4, 1000])
def test_a_second_backward_pass_is_an_error_or_the_same(rows_at_once: int) -> None:
    head, hidden, labels = problem()
    loss = supervised_losses(head, hidden, labels, VOCAB, rows_at_once * VOCAB * 4).losses.sum()
    loss.backward(retain_graph=True)
    first = hidden.grad.clone()
    try:
        loss.backward()
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)
    else:
        torch.testing.assert_close(hidden.grad, 2 * first)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_extreme_logits_have_finite_losses_and_gradients(device: str) -> None:
    targets = torch.tensor([0, 1, 2], device=device)
    logits = torch.tensor([[1e4, 0.0, -1e4], [1e4, 0.0, -1e4], [-1e30, -1e30, -1e30]], device=device)
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    labels = targets[None]
    result = supervised_losses(lambda x: x * 1.0, ours[None], labels, 3, 1 << 20)
    expected = F.cross_entropy(theirs, targets, reduction="none")
    assert torch.equal(result.losses, expected)
    result.losses.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert torch.isfinite(ours.grad).all()
