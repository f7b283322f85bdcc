"""Cross-entropy on supervised rows only.

    hidden (1, T, D), labels (1, T) -> rows with a label (R, D) -> lm_head -> fp32 logits (R, V) -> losses (R,)

A position without label has no loss, so leaving it out is exact. At 448 px about 3 % of the tokens are
supervised: the head then costs a thirtieth. Where even those logits pass the byte budget, they are made
chunk by chunk and made again in the backward pass, which holds one chunk at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.utils.checkpoint import checkpoint

from internvl_lab.constants import IGNORE_INDEX

_BYTES_PER_LOGIT = 4


@dataclass(frozen=True)
class TokenLosses:
    """Hold the cross-entropy of each supervised position of a pack."""

    rows: Tensor
    """(R,) int64, supervised positions in the pack, ascending."""
    losses: Tensor
    """(R,) float32, cross-entropy in nats, not averaged."""


def supervised_losses(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    labels: Tensor,
    vocab_size: int,
    byte_budget: int,
    rows: Tensor | None = None,
) -> TokenLosses:
    """Compute the cross-entropy of every position that has a label.

    Args:
        head: maps (R, D) to logits (R, V).
        hidden: (1, T, D) last hidden states.
        labels: (1, T) int64 target of each position, IGNORE_INDEX where there is none.
        vocab_size: V.
        byte_budget: most bytes of fp32 logits at once.
        rows: (R,) int64 positions with a label, where they are known already; None = look for them.
    Returns:
        Rows and losses, both (R,); R may be 0.
    """
    targets = labels.flatten()
    if rows is None:
        rows = (targets != IGNORE_INDEX).nonzero().flatten()
    selected, targets = hidden.flatten(0, 1).index_select(0, rows), targets.index_select(0, rows)
    chunk = max(1, byte_budget // (vocab_size * _BYTES_PER_LOGIT))
    if len(rows) <= chunk:
        return TokenLosses(rows, _cross_entropy(head, selected, targets))
    pairs = zip(selected.split(chunk), targets.split(chunk), strict=True)
    losses = [checkpoint(_cross_entropy, head, part, target, use_reentrant=False) for part, target in pairs]
    return TokenLosses(rows, torch.cat(losses))


def _cross_entropy(head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor) -> Tensor:
    """Return (R,) fp32 losses of (R, D) hidden states."""
    losses: Tensor = _InPlaceCrossEntropy.apply(head(hidden).float(), targets)  # type: ignore[no-untyped-call]
    return losses


class _InPlaceCrossEntropy(torch.autograd.Function):
    """Make log-probabilities of logits, and their gradient of these, in the one tensor that is there.

    `F.cross_entropy` holds logits and log-probabilities, then log-probabilities and two gradients of this size, and
    fills one with zeros first: 110 ms of 517 rows and 32,000 words on one core, where this takes 36.
    A second backward pass raises autograd's error about a tensor modified in place.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, targets: Tensor) -> Tensor:
        """Turn fp32 logits (R, V), which nobody else reads, into losses (R,) for targets (R,)."""
        log_probs = torch.log_softmax(logits, 1, out=logits)
        ctx.save_for_backward(log_probs, targets)
        return log_probs.gather(1, targets[:, None]).neg().flatten()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return (probabilities - one-hot targets) x grad: (R, V)."""
        log_probs, targets = ctx.saved_tensors
        difference = log_probs.exp_()
        difference.scatter_add_(1, targets[:, None], difference.new_full((len(targets), 1), -1.0))
        return difference.mul_(grad[:, None]), None
