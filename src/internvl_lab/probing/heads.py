"""Heads on frozen features, J of them trained at once on the same batch.

    linear      x (B, 2C) = [CLS, mean patch] -> BN -> linear -> logits (B, J, K)
    attention   x (B, 1+P, C) -> cross-attention of the mean token -> BN -> linear -> logits (B, J, K)

J = targets x learning rates. The J heads share nothing but the input, so the gradient of the sum of their losses is
each one's own gradient, and what does not depend on a head's parameters (the normalised input) is computed once.

Attention pooling needs no keys and values of tokens: with a single query, `q . (W_k x)` is `(W_k^T q) . x`, and
`sum a (W_v x)` is `W_v (sum a x)`. So the weights act on B vectors instead of B (1+P), and that is exact. The biases of
keys (and of their norm) add the same number to all scores of a query, which the softmax removes: they stay at 0 in the
authors' training and are left out here.

Forward and backward of one picture cost a head 2 (11 C^2 + 4 H (1+P) C) operations with H attention heads; projecting
all tokens takes 2 (6 (1+P) C^2) and more, 20 times as many at mini scale, 140 at that of the 6B encoder. J heads
cost J times as many: there is nothing left to share. Ten rates, ten epochs, are 0.7 % of one pass of the 6B encoder.
Beside a mini encoder they are more than the pass. Measured there (CPU time of one core; every depth, four targets, ten
epochs, pass included), ten rates take 1.1 times as long as one with linear heads and 3.0 times with attention pooling;
at the full speed of this core's matrix product the latter would be 2.3.
Source: InternVL 2.5, section 7.1; authors' `classification/models/intern_vit_6b.py`; spec section 11.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INIT_STD = 0.01
"""Standard deviation of the classifiers' initial weights."""
BATCH_NORM_EPS = 1e-6
LAYER_NORM_EPS = 1e-5


class Classifiers(nn.Module):
    """Classify with J linear layers of K_j classes, padded to K = max K_j.

    Args:
        num_features: D, width of the input.
        num_classes: K_j of each head.
    """

    valid: Tensor

    def __init__(self, num_features: int, num_classes: Sequence[int]) -> None:
        super().__init__()
        shape = (len(num_classes), max(num_classes))
        self.weight = nn.Parameter(torch.empty(*shape, num_features).normal_(0.0, INIT_STD))
        self.bias = nn.Parameter(torch.zeros(shape))
        valid = torch.arange(shape[1]) < torch.tensor(num_classes)[:, None]
        self.register_buffer("valid", valid, persistent=False)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Apply `weight` (J, K, D) and `bias` (J, K) to x (B, D), or to each head's own x (B, J, D): (B, J, K)."""
        logits = torch.einsum("bd,jkd->bjk" if x.dim() == 2 else "bjd,jkd->bjk", x, weight) + bias
        return logits.masked_fill(~self.valid, -torch.inf)


class LinearProbes(nn.Module):
    """Hold J times BatchNorm -> linear on one pooled vector a picture.

    The batch statistics are the same for all heads; each has its own scale and shift, which are folded into its
    weights, so that J heads are one matrix product.

    Args:
        num_features: D.
        num_classes: K_j of each head.
    """

    def __init__(self, num_features: int, num_classes: Sequence[int]) -> None:
        super().__init__()
        num_heads = len(num_classes)
        self.norm = nn.BatchNorm1d(num_features, eps=BATCH_NORM_EPS, affine=False)
        self.scale = nn.Parameter(torch.ones(num_heads, num_features))
        self.shift = nn.Parameter(torch.zeros(num_heads, num_features))
        self.classifiers = Classifiers(num_features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map pooled features (B, D) to logits (B, J, K); classes a head lacks are -inf."""
        weight, bias = self.classifiers.weight, self.classifiers.bias
        x = self.norm(x.to(weight.dtype))
        logits: Tensor = self.classifiers(x, *_folded(weight, self.scale, self.shift, bias))
        return logits


class AttentionProbes(nn.Module):
    """Hold J times attention pooling -> BatchNorm -> linear on the tokens of a picture.

    Args:
        width: C.
        num_attention_heads: H; divides C (the report: the encoder's own number).
        num_classes: K_j of each head.
    """

    query_weight: nn.Parameter
    key_weight: nn.Parameter
    value_weight: nn.Parameter
    out_weight: nn.Parameter
    query_bias: nn.Parameter
    value_bias: nn.Parameter
    out_bias: nn.Parameter

    def __init__(self, width: int, num_attention_heads: int, num_classes: Sequence[int]) -> None:
        super().__init__()
        num_heads = len(num_classes)
        self.width, self.num_attention_heads = width, num_attention_heads
        bound = width**-0.5  # what nn.Linear starts from
        for name in ("query", "key", "value", "out"):
            weight = nn.Parameter(torch.empty(num_heads, width, width).uniform_(-bound, bound))
            self.register_parameter(f"{name}_weight", weight)
        for name in ("query", "value"):
            self.register_parameter(f"{name}_bias", nn.Parameter(torch.zeros(num_heads, width)))
        self.out_bias = nn.Parameter(torch.empty(num_heads, width).uniform_(-bound, bound))
        # of the three LayerNorms, whose statistics all heads share
        self.query_scale = nn.Parameter(torch.ones(num_heads, width))
        self.query_shift = nn.Parameter(torch.zeros(num_heads, width))
        self.key_scale = nn.Parameter(torch.ones(num_heads, width))
        self.value_scale = nn.Parameter(torch.ones(num_heads, width))
        self.value_shift = nn.Parameter(torch.zeros(num_heads, width))
        self.norm = nn.BatchNorm1d(num_heads * width, eps=BATCH_NORM_EPS)
        self.classifiers = Classifiers(width, num_classes)

    def pool(self, tokens: Tensor) -> Tensor:
        """Pool tokens (B, 1+P, C) with J queries to (B, J, C)."""
        tokens, width, head_width = tokens.to(self.out_weight.dtype), self.width, self.width // self.num_attention_heads
        mean = F.layer_norm(tokens.mean(1), (width,), eps=LAYER_NORM_EPS)
        normed = F.layer_norm(tokens, (width,), eps=LAYER_NORM_EPS)
        weight, bias = _folded(self.query_weight, self.query_scale, self.query_shift, self.query_bias)
        queries = F.linear(mean, weight.flatten(0, 1), bias.flatten()).view(len(tokens), -1, head_width)
        key_weight = (self.key_weight * self.key_scale[:, None] * head_width**-0.5).view(-1, head_width, width)
        looked_for = torch.bmm(queries.transpose(0, 1), key_weight).transpose(0, 1)  # (B, J H, C)
        found = torch.bmm(torch.bmm(looked_for, normed.mT).softmax(-1), normed)
        weight, bias = _folded(self.value_weight, self.value_scale, self.value_shift, self.value_bias)
        values = torch.bmm(found.transpose(0, 1), weight.view(-1, head_width, width).mT)  # (J H, B, C / H)
        values = values.unflatten(0, (-1, self.num_attention_heads)).transpose(1, 2).flatten(2) + bias[:, None]
        return torch.baddbmm(self.out_bias[:, None], values, self.out_weight.mT).transpose(0, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, 1+P, C) to logits (B, J, K); classes a head lacks are -inf."""
        pooled = self.norm(self.pool(tokens).flatten(1)).unflatten(1, (-1, self.width))
        logits: Tensor = self.classifiers(pooled, self.classifiers.weight, self.classifiers.bias)
        return logits


def _folded(weight: Tensor, scale: Tensor, shift: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Fold a norm's scale and shift (J, C) into the layer (J, D, C), (J, D) after it."""
    return weight * scale[:, None], bias + torch.einsum("jdc,jc->jd", weight, shift)


def pool_tokens(tokens: Tensor) -> Tensor:
    """Join CLS and the mean patch: (B, 1+P, C) -> (B, 2C)."""
    return torch.cat((tokens[:, 0], tokens[:, 1:].mean(1)), dim=-1)


def probe_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return each head's mean cross-entropy over the labelled pictures.

    Args:
        logits: (B, J, K).
        labels: (B, J) class of each picture for each head; -1 = no label.
    Returns:
        (J,); 0 where no picture has a label.
    """
    labelled = labels >= 0
    losses = -logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)
    return torch.where(labelled, losses, 0.0).sum(0) / labelled.sum(0).clamp(min=1)
