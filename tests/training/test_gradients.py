"""Norm, scale, clip and drop of gradients."""

from __future__ import annotations

import pytest
import torch

from internvl_lab.training import gradients


def parameters(*values: float | None) -> list[torch.Tensor]:
    """Return parameters whose gradients are these values."""
    made = [torch.zeros(1, requires_grad=True) for _ in values]
    for parameter, value in zip(made, values, strict=True):
        parameter.grad = None if value is None else torch.tensor([value])
    return made


def test_only_parameters_with_a_gradient_are_returned() -> None:
    made = parameters(1.0, None, 2.0)
    found = gradients.parameters_with_gradient(torch.optim.SGD(made, lr=1.0))
    assert [p.grad.item() for p in found if p.grad is not None] == [1.0, 2.0]


def test_global_norm_is_over_all_gradients_together() -> None:
    assert gradients.global_norm(parameters(3.0, 4.0)).item() == pytest.approx(5.0)
    assert gradients.global_norm(parameters(None)).item() == 0.0


def test_global_norm_of_a_sharded_gradient_is_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sharded:
        def full_tensor(self) -> torch.Tensor:
            return torch.tensor(7.0)

    monkeypatch.setattr(torch.nn.utils, "get_total_norm", lambda _: Sharded())
    assert gradients.global_norm(parameters(1.0)).item() == 7.0


def test_scale_is_in_place() -> None:
    made = parameters(3.0, 4.0)
    gradients.scale(made, 0.5)
    assert [p.grad.item() for p in made if p.grad is not None] == [1.5, 2.0]
    gradients.scale(parameters(None), 0.5)  # nothing to scale is no error


@pytest.mark.parametrize(("norm", "max_norm"), [(5.0, 1.0), (0.3, 1.0), (5.0, 2.5)])
def test_clip_factor_equals_torch(norm: float, max_norm: float) -> None:
    made = parameters(norm)
    torch.nn.utils.clip_grad_norm_(made, max_norm)
    assert made[0].grad is not None
    assert norm * gradients.clip_factor(norm, max_norm) == pytest.approx(made[0].grad.item(), rel=1e-6)


def test_clip_factor_zero_means_off() -> None:
    assert gradients.clip_factor(1e9, 0.0) == 1.0


def test_dropped_gradients_leave_adamw_alone() -> None:
    parameter = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.5)
    parameter.grad = torch.full((2,), float("nan"))
    gradients.drop([parameter])
    optimizer.step()
    assert parameter.tolist() == [1.0, 1.0]
    assert not optimizer.state
