"""What a run will cost, by arithmetic: nothing is built, no weight is read.

::

    RunConfig ── pack_bound, or packs measured on an index ──> PackUse of each stage
       │                                                          │
       ├── models.flops ─────────> FLOPs a step by part ──────────┼──> Cost: FLOPs, GPU hours, price, tokens, tiles
       └── memory ───────────────> bytes of a GPU by kind ────────┘          and the smallest layout that fits

Hours count required operations only: MFU is defined on them, and recomputation is part of what keeps it below 1.
Evaluation and validation are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from internvl_lab.config import CostConfig, RunConfig, StageConfig
from internvl_lab.errors import ConfigError
from internvl_lab.models import DEVICES, find_device, flops_by_part
from internvl_lab.models.devices import GIB, Device
from internvl_lab.scaling.cost_layout import Fit, configured_layout, smallest_layout, stage_memory
from internvl_lab.scaling.memory import Layout, Memory
from internvl_lab.scaling.memory_blocks import PackUse, model_blocks
from internvl_lab.scaling.memory_numerics import numerics

SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class StageCost:
    """Hold what one stage costs."""

    name: str
    steps: int
    packs_per_step: int
    use: PackUse
    """A pack on average, or its bound."""
    measured: bool
    """Whether `use` was measured on an index; else it is at most that."""
    parameters: int
    """Of the model, adapters included."""
    trained: int
    flops: Mapping[str, float]
    """Operations of an optimizer step by part, see `models.flops.FLOP_PARTS`."""
    memory: Memory
    """Of one GPU at the fullest moment, laid out as configured, with both budgets of a pack full."""
    gpu_hours: float

    @property
    def step_flops(self) -> float:
        """Return the operations of one optimizer step."""
        return sum(self.flops.values())

    @property
    def packs(self) -> int:
        """Count the packs of the stage."""
        return self.steps * self.packs_per_step


@dataclass(frozen=True)
class Cost:
    """Hold what a run costs."""

    stages: tuple[StageCost, ...]
    layout: Layout
    """As configured."""
    smallest: Fit | None
    """The smallest layout that fits; None = none does."""
    price: float | None
    """In the currency of `cost.price_per_gpu_hour`; None without one."""

    @property
    def flops(self) -> float:
        """Return the required operations of all stages."""
        return sum(stage.step_flops * stage.steps for stage in self.stages)

    @property
    def gpu_hours(self) -> float:
        """Return the hours of one GPU, or of n GPUs n times as many hours as the clock shows."""
        return sum(stage.gpu_hours for stage in self.stages)

    @property
    def peak_memory_bytes(self) -> float:
        """Return the bytes of one GPU in the stage that needs most."""
        return max((stage.memory.total for stage in self.stages), default=0.0)

    @property
    def tokens(self) -> float:
        """Return the tokens of all stages, visual ones included."""
        return sum(stage.packs * stage.use.tokens for stage in self.stages)

    @property
    def tiles(self) -> float:
        """Return the tiles of all stages."""
        return sum(stage.packs * stage.use.tiles for stage in self.stages)

    @property
    def measured(self) -> bool:
        """Say whether all packs were measured; else the figures are upper bounds."""
        return all(stage.measured for stage in self.stages)


def plan_row(config: RunConfig, uses: Mapping[str, PackUse] | None = None) -> Cost:
    """Plan one run: a row of a study, or the only one.

    Args:
        config: of the run.
        uses: mean packs by stage, where they were measured; others count as full.
    Raises:
        ConfigError: `cost.gpu` is unknown.
    """
    device = device_of(config.cost)
    layout = configured_layout(config.trainer, config.cost)
    stages = tuple(
        _stage_cost(config, stage, (uses or {}).get(stage.name), layout, device) for stage in config.stages.values()
    )
    hours = sum(stage.gpu_hours for stage in stages)
    rate = config.cost.price_per_gpu_hour
    usable = device.memory_bytes * (1 - config.cost.reserve)
    bound = pack_bound(config)
    return Cost(
        stages=stages,
        layout=layout,
        smallest=smallest_layout(config, bound, usable),
        price=None if rate is None else hours * rate,
    )


def device_of(cost: CostConfig) -> Device:
    """Return the GPU of a plan: that of the table, with what the configuration says instead.

    Raises:
        ConfigError: `cost.gpu` is not in the table, and memory or peak are not given.
    """
    known = find_device(cost.gpu)
    if known is None and (cost.peak_tflops is None or cost.memory_gb is None):
        raise ConfigError(
            f"cost.gpu={cost.gpu!r} is none of {', '.join(DEVICES)}: give cost.memory_gb and cost.peak_tflops"
        )
    device = known or Device(0.0, 0)
    if cost.peak_tflops is not None:
        device = replace(device, peak_bf16_flops=cost.peak_tflops * 1e12)
    return device if cost.memory_gb is None else replace(device, memory_bytes=int(cost.memory_gb * GIB))


def pack_bound(config: RunConfig) -> PackUse:
    """Bound a pack: both budgets full, all in one sample, every token that is not visual supervised."""
    tokens, visual = config.packing.max_tokens, config.model.num_visual_tokens
    tiles = min(config.packing.max_tiles, tokens // visual)
    return PackUse(tokens, tokens**2, tiles, tokens - tiles * visual)


def _stage_cost(
    config: RunConfig, stage: StageConfig, measured: PackUse | None, layout: Layout, device: Device
) -> StageCost:
    bound = pack_bound(config)
    use, packs = measured or bound, config.packs_per_step(stage)
    flops = flops_by_part(
        config.model,
        tokens=packs * use.tokens,
        sum_sq=packs * use.sum_sq,
        tiles=packs * use.tiles,
        supervised_rows=packs * use.supervised_rows,
        trainable=stage.trainable,
        adapted=stage.lora.parts,
    )
    parameters, trained = count_trained(config, stage)
    return StageCost(
        name=stage.name,
        steps=stage.max_steps,
        packs_per_step=packs,
        use=use,
        measured=measured is not None,
        parameters=parameters,
        trained=trained,
        flops=flops,
        memory=stage_memory(config, stage, bound, layout, stage.gradient_checkpointing),
        gpu_hours=gpu_hours(sum(flops.values()) * stage.max_steps, config.cost.mfu, device.peak_bf16_flops),
    )


def gpu_hours(flops: float, mfu: float, peak_flops: float) -> float:
    """Return the hours one GPU needs for `flops` required operations at a share `mfu` of `peak_flops` a second."""
    return flops / (mfu * peak_flops * SECONDS_PER_HOUR)


def count_trained(config: RunConfig, stage: StageConfig) -> tuple[int, int]:
    """Count the parameters of the model with the stage's adapters, and those of them that train."""
    n = numerics(config.model.dtype, "32-true")
    empty = PackUse(0, 0, 0, 0)
    blocks = model_blocks(config.model, empty, n, stage.trainable, stage.lora, ())
    return sum(block.parameters for block in blocks), sum(block.trained for block in blocks)
