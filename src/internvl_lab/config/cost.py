"""On which machines a run is planned, and at what price: what `plan=true` counts with."""

from __future__ import annotations

from dataclasses import dataclass

from internvl_lab.config.checks import above_zero, at_least, share


@dataclass(frozen=True)
class CostConfig:
    """Describe the GPUs of a cost plan; nothing here changes what a run does."""

    gpu: str = "h100"
    """Key or driver's name of a device of `models.devices`, which knows its peak and its memory."""
    memory_gb: float | None = None
    """Memory of one GPU in GiB; null = the device's."""
    peak_tflops: float | None = None
    """Dense bf16 TFLOP/s of one GPU; null = the device's."""
    mfu: float = 0.4
    """Share of the bf16 peak that required operations are done at, also where a run computes in fp32."""
    price_per_gpu_hour: float | None = None
    """In any currency; null = no price."""
    gpus_per_node: int = 8
    max_gpus: int = 1024
    """Most GPUs of the layouts that are tried."""
    reserve: float = 0.1
    """Share of the memory that tensors may not fill: CUDA context, libraries' workspaces, fragments."""

    def __post_init__(self) -> None:
        """Refuse machines without memory or speed."""
        above_zero(self, "cost", "memory_gb", "peak_tflops", "mfu")
        at_least(self, "cost", 0, "price_per_gpu_hour")
        at_least(self, "cost", 1, "gpus_per_node", "max_gpus")
        share(self, "cost", "mfu")
        share(self, "cost", "reserve", below_one=True)
