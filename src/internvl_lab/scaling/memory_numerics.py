"""How many bytes a number takes, by where it stands: what `model.dtype`, `trainer.precision` and FSDP2 decide.

| model.dtype | trainer.precision | weights | products | residual stream                                      |
|-------------|-------------------|---------|----------|------------------------------------------------------|
| float32     | 32-true           | 4       | 4        | 4                                                    |
| float32     | bf16-mixed        | 4       | 2        | 4; 2 under FSDP2, which casts what enters a layer    |
| bfloat16    | any               | 2       | 2        | 2                                                    |

Gradients and AdamW's two states are in the type of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

FP32 = 4


@dataclass(frozen=True)
class Numerics:
    """Hold the bytes of a number, by where it stands."""

    weight: int
    """Parameters, their gradients, AdamW's states."""
    compute: int
    """Operands of matrix products."""
    stream: int
    """Residual stream."""
    attention: int
    """Queries, keys, values and outputs of attention kernels."""
    layer_norm: int
    """Inputs and outputs of LayerNorm, which CUDA's autocast runs in fp32."""
    reduced: int
    """Gradients that FSDP2 sums over ranks."""
    on_cpu: bool = False

    @property
    def weight_copy(self) -> int:
        """Return the bytes of the copy that autocast makes of a weight; 0 = it makes none."""
        return self.compute if self.stream != self.compute else 0


def numerics(dtype: str, precision: str, *, sharded: bool = False, on_cpu: bool = False) -> Numerics:
    """Say how many bytes numbers take.

    Args:
        dtype: `model.dtype`.
        precision: `trainer.precision`.
        sharded: FSDP2, which gathers weights in half precision under mixed precision and so casts the stream too.
        on_cpu: our attention runs in fp32 there.
    """
    weight = 2 if dtype == "bfloat16" else FP32
    mixed = precision.endswith("-mixed")
    compute = 2 if mixed else weight
    stream = compute if sharded else weight
    return Numerics(
        weight=weight,
        compute=compute,
        stream=stream,
        attention=FP32 if on_cpu else compute,
        layer_norm=FP32 if mixed and not on_cpu else stream,
        reduced=FP32 if mixed else weight,
        on_cpu=on_cpu,
    )
