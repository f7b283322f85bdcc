"""What happens to gradients between the backward pass and the optimizer: norm, scale, clip, drop.

Kept free of Lightning, so that the arithmetic can be tested by hand.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

from internvl_lab.models import whole


def parameters_with_gradient(optimizer: Optimizer) -> list[Tensor]:
    """Return the optimizer's parameters (any shape) that have a gradient, in the optimizer's order."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def global_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Return the 2-norm of all gradients together: () float, equal on all ranks also for sharded gradients."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    return whole(torch.nn.utils.get_total_norm(gradients))


def scale(parameters: Iterable[Tensor], factor: float) -> None:
    """Multiply all gradients (any shape) by `factor`, in place."""
    found = [p.grad for p in parameters if p.grad is not None]
    if found:
        torch._foreach_mul_(found, factor)


def clip_factor(norm: float, max_norm: float) -> float:
    """Return what the gradient is multiplied with so that its norm is at most `max_norm`; 1 when `max_norm` is 0.

    Source: torch.nn.utils.clip_grad_norm_, which adds 1e-6 to the norm.
    """
    return min(1.0, max_norm / (norm + 1e-6)) if max_norm > 0 else 1.0


def drop(parameters: Iterable[Tensor]) -> None:
    """Remove all gradients (any shape): the optimizer then changes neither weights nor moments."""
    for parameter in parameters:
        parameter.grad = None
