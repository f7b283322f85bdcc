"""The loss of one optimizer step: sums over its packs, then over all ranks, in one small collective.

    pack ──> sum of w*CE (back-propagated, not normalised) ──┐
             sum of w, counts, sums per source ──────────────┤  every pack adds
                                                             ▼
                                        totals of this rank (fp64) ──all-reduce──> StepResult

Dimensions: T tokens, R supervised rows, K sources. Loss = sum of w*CE over sum of w, over all packs and
ranks of the step (InternVL 2.5, equation 5; DESIGN section 3.7).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from internvl_lab.data.batch import Batch

COUNTS = ("tokens", "supervised_tokens", "samples", "tiles", "packs", "bad_samples", "flops")
"""What is counted beside the loss, in the order of the collective."""


@dataclass(frozen=True)
class StepResult:
    """Hold one optimizer step's global figures; equal on all ranks."""

    loss: float
    """Sum of w*CE over sum of w; NaN when the step holds no supervised token."""
    weight: float
    """Sum of w."""
    counts: dict[str, float]
    """The figures named in `COUNTS`."""
    source_losses: dict[str, float]
    """Source name to its own normalised loss; only sources with a supervised token in the step."""
    grad_norm: float
    """Norm of the normalised gradient, before clipping."""
    skipped: bool = False
    """Whether the optimizer left the weights alone."""

    @property
    def finite(self) -> bool:
        """Say whether loss and gradient are usable numbers."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


@dataclass
class StepTotals:
    """Collect the sums of one optimizer step.

    Args:
        source_names: K names, in the order of `Batch.source_ids`; empty = no losses by source.
    """

    source_names: Sequence[str] = ()
    packs: list[tuple[list[str], Tensor]] = field(default_factory=list)
    """Sample keys and loss sum () of every pack of this rank's step, to name the offender of a bad step."""
    _sums: Tensor | None = None
    _counts: list[float] = field(default_factory=lambda: [0.0] * len(COUNTS))

    def reset(self) -> None:
        """Begin the next step."""
        self.packs.clear()
        self._sums = None
        self._counts = [0.0] * len(COUNTS)

    def add(self, batch: Batch, rows: Tensor, losses: Tensor, flops: float = 0.0) -> Tensor:
        """Add one pack.

        Args:
            batch: the pack.
            rows: (R,) int64, supervised positions in [0, T).
            losses: (R,) float32, cross entropy of each.
            flops: model FLOPs of this pack.

        Returns:
            () float32, the sum of w*CE with its graph: what `backward` runs on.
        """
        weights = batch.loss_weights[0, rows]
        weighted = losses * weights
        total = weighted.sum()
        self._add_sums(batch, rows, weighted.detach(), weights)
        counted = (batch.num_tokens, rows.numel(), len(batch.sample_keys), batch.num_tiles, 1, len(batch.bad_samples))
        for position, value in enumerate((*counted, flops)):
            self._counts[position] += value
        self.packs.append((batch.sample_keys, total.detach()))
        return total

    def _add_sums(self, batch: Batch, rows: Tensor, weighted: Tensor, weights: Tensor) -> None:
        """Add to the fp64 vector [sum w*CE, sum w, K sums of w*CE, K sums of w]."""
        exact = torch.float32 if weighted.device.type == "mps" else torch.float64
        both = torch.stack((weighted, weights)).to(exact)
        sums = both.sum(dim=1)
        if self.source_names:
            sample = torch.searchsorted(batch.cu_seqlens[1:], rows.to(batch.cu_seqlens.dtype), right=True)
            source = batch.source_ids.to(torch.int64)[sample]
            by_source = both.new_zeros(2, len(self.source_names)).index_add_(1, source, both)
            sums = torch.cat((sums, by_source.flatten()))
        self._sums = sums if self._sums is None else self._sums + sums

    def reduce(self, all_reduce: Callable[[Tensor], Tensor]) -> Tensor:
        """Sum over all ranks.

        Args:
            all_reduce: sums a tensor over ranks.

        Returns:
            (F,) float64, F = 2 + 2K + len(COUNTS): weighted loss, weight, the same by source, counts.

        Raises:
            RuntimeError: no pack was added.
        """
        if self._sums is None:
            raise RuntimeError("an optimizer step without a pack")
        return all_reduce(torch.cat((self._sums, self._sums.new_tensor(self._counts))))

    def result(self, values: Sequence[float], grad_norm: float) -> StepResult:
        """Read the figures of a step from the reduced vector, as Python numbers."""
        weighted, weight = values[:2]
        k = len(self.source_names)
        by_source = zip(self.source_names, values[2 : 2 + k], values[2 + k : 2 + 2 * k], strict=True)
        return StepResult(
            loss=weighted / weight if weight > 0 else math.nan,
            weight=weight,
            counts=dict(zip(COUNTS, values[2 + 2 * k :], strict=True)),
            source_losses={name: loss / share for name, loss, share in by_source if share > 0},
            grad_norm=grad_norm,
        )
