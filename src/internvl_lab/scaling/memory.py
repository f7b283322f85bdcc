"""The most bytes that tensors hold at once in a training step of one GPU, by what they are.

The blocks of `memory_blocks` are walked as a step walks them, and the fullest moment is kept:

    resident: weights, AdamW's two states, the pack, gradients of the step before (freed between forward and backward,
              or summed up over the packs of a step)
    forward:  block after block adds what it keeps; while it runs it needs its transients
    backward: in reverse; gradients come, what was kept goes

DDP adds its buckets (a copy of the gradients). FSDP2 holds a share of weights, gradients and states, the root's unit
whole, two layers gathered at a time, and the gradients on their way to the other ranks.
What the allocator loses to rounding and the CUDA context are not in the figures: `cost.reserve` is for them.

Measured with torch's memory profiler on mini models on a CPU: 46 stages on one process within 6 %, most within 2 %; DDP
on 2 processes 0.1 % off, FSDP2 on 2 processes 0.1 to 5 % off. The kernels of a GPU are written down, not measured.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from internvl_lab.config import LoraConfig, ModelConfig
from internvl_lab.scaling.memory_blocks import Block, PackUse, model_blocks
from internvl_lab.scaling.memory_numerics import FP32, Numerics, numerics

ADAM_STATES = 2


class _Bytes:
    """Add up the fields of a dataclass of bytes."""

    @property
    def total(self) -> float:
        """Return the sum."""
        return float(sum(vars(self).values()))


@dataclass(frozen=True)
class Memory(_Bytes):
    """Hold the bytes of one GPU at the fullest moment of a step."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    """Kept for the backward pass or transient, and the pack itself."""
    logits: float
    communication: float
    """DDP's buckets; FSDP2's gathered weights and gradients that are being reduced."""


@dataclass(frozen=True)
class Layout:
    """Say how a run is spread over GPUs."""

    gpus: int = 1
    strategy: str = "single"
    """`single`, `ddp` or `fsdp2`."""


def peak_memory(
    config: ModelConfig,
    use: PackUse,
    *,
    precision: str,
    trainable: Collection[str],
    lora: LoraConfig,
    checkpointed: Collection[str] = (),
    layout: Layout = Layout(),
    accumulates: bool = False,
    on_cpu: bool = False,
) -> Memory:
    """Predict the peak of live tensor bytes on one GPU.

    Args:
        config: sizes, dtype and the byte budget of the logits.
        use: the pack.
        precision: `trainer.precision`.
        trainable, lora, checkpointed: as the stage says.
        layout: GPUs and strategy.
        accumulates: whether a rank sums the gradients of several packs.
        on_cpu: the kernels of a CPU instead of a GPU's.
    """
    sharded = layout.strategy == "fsdp2"
    n = numerics(config.dtype, precision, sharded=sharded, on_cpu=on_cpu)
    blocks = model_blocks(config, use, n, trainable, lora, checkpointed)
    share = layout.gpus if sharded else 1
    walk = _Walk(blocks, n, share, accumulates)
    moment = max(walk.moments(), key=lambda m: m.total)
    trained = sum(block.trained for block in blocks)
    return Memory(
        weights=sum(block.parameters for block in blocks) * n.weight / share,
        gradients=moment.gradients,
        optimizer=ADAM_STATES * trained * n.weight / share,
        activations=moment.activations + _pack_bytes(config, use),
        logits=moment.logits,
        communication=moment.communication + (trained * n.weight if layout.strategy == "ddp" else 0),
    )


def _pack_bytes(config: ModelConfig, use: PackUse) -> float:
    """Count the batch: uint8 pixels, and ids, labels, positions (int64) and weights (fp32) of the tokens."""
    return use.tiles * 3 * config.vision.image_size**2 + use.tokens * (3 * 8 + FP32)


@dataclass(frozen=True)
class _Moment(_Bytes):
    """Hold what one moment of a step needs beside weights and states."""

    gradients: float
    activations: float
    logits: float
    communication: float


class _Walk:
    """Walk through a step.

    Args:
        blocks: in forward order.
        n: bytes of numbers.
        share: GPUs over which FSDP2 shards; 1 = none.
        accumulates: whether gradients of earlier packs are there all the time.
    """

    def __init__(self, blocks: Sequence[Block], n: Numerics, share: int, accumulates: bool) -> None:
        self.blocks, self.n, self.share, self.accumulates = blocks, n, share, accumulates
        self.root = sum(b.parameters * n.compute for b in blocks if not b.is_layer)
        self.root_trained = sum(b.trained for b in blocks if not b.is_layer)
        self.gradients = sum(b.trained for b in blocks) * n.weight

    def moments(self) -> Iterator[_Moment]:
        """Yield the moments that may be the fullest: one a block and direction, and the optimizer's step."""
        kept = {"activations": 0.0, "logits": 0.0}
        for block in self.blocks:
            yield self._moment(self.gradients, kept, block, block.forward, backward=False)
            kept[block.kind] += block.saved + block.cached
        kept["activations"] -= sum(block.cached for block in self.blocks)  # autocast's copies end with the forward pass
        gradients = self.gradients if self.accumulates else 0.0
        for block in reversed(self.blocks):
            # the large matrices outside of layers: their gradient is made before what it is made of can go
            fresh = 0 if block.is_layer or self.share > 1 else block.trained * self.n.weight
            yield self._moment(gradients + fresh, kept, block, block.recomputed + block.backward, backward=True)
            kept[block.kind] -= block.saved
            gradients += 0.0 if self.accumulates else block.trained * self.n.weight
        yield _Moment(self.gradients / self.share, 0.0, 0.0, self._gathered(None, backward=True))

    def _moment(
        self, gradients: float, kept: Mapping[str, float], block: Block, transient: float, backward: bool
    ) -> _Moment:
        held = {**kept, block.kind: kept[block.kind] + transient}
        return _Moment(gradients / self.share, held["activations"], held["logits"], self._gathered(block, backward))

    def _gathered(self, block: Block | None, backward: bool) -> float:
        """Count FSDP2's buffers.

        The root's unit is whole all the time, and of the layers this one and the one that is fetched ahead. Gradients
        are in the weights' type until they are reduced: a layer's at once, the root's after the last block (None).
        """
        if self.share == 1:
            return 0.0
        n, root_gradients = self.n, self.root_trained * self.n.compute
        if block is None:
            return self.root + root_gradients + self.root_trained * n.reduced
        layer, trained = (block.parameters, block.trained) if block.is_layer else (0, 0)
        weights = self.root + 2 * layer * n.compute
        return weights + (root_gradients + trained * (n.compute + n.reduced) if backward else 0)
