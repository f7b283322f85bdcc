"""How a run is spread over GPUs: as configured, and the smallest way that fits into their memory.

Layouts are tried from one GPU on, doubling up to a node and then in nodes; on as many GPUs DDP before FSDP2, because it
sends less; and with as little recomputation as fits, chosen stage by stage.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from internvl_lab.config import CostConfig, RunConfig, StageConfig
from internvl_lab.models.flops import language_flops, vision_flops
from internvl_lab.scaling.memory import Layout, Memory, peak_memory
from internvl_lab.scaling.memory_blocks import PackUse

DEFAULT_PRECISION = "32-true"
"""Lightning's, where `trainer.precision` is not set."""
MAX_DOUBLINGS = 20
"""Of one GPU, and of one node; `cost.max_gpus` ends the search long before."""


@dataclass(frozen=True)
class Fit:
    """Hold a layout that fits."""

    layout: Layout
    num_nodes: int
    checkpointing: Mapping[str, tuple[str, ...]]
    """Stage name to the parts that recompute."""
    memory: Memory
    """Of the stage that needs most."""

    def overrides(self, config: RunConfig) -> list[str]:
        """Write what sets the layout apart from the configured one as overrides of `train.py`; empty = nothing does."""
        strategy = "auto" if self.layout.strategy == "single" else self.layout.strategy
        wanted = {"devices": self.layout.gpus // self.num_nodes, "num_nodes": self.num_nodes, "strategy": strategy}
        trainer = {"devices": 1, "num_nodes": 1, "strategy": "auto", **config.trainer}
        words = [f"trainer.{key}={value}" for key, value in wanted.items() if trainer[key] != value]
        for name, parts in self.checkpointing.items():
            if set(parts) != set(config.stages[name].gradient_checkpointing):
                key = "stage" if config.stage is not None else f"recipe.stages.{name}"
                words.append(f"{key}.gradient_checkpointing=[{','.join(parts)}]")
        return words


def configured_layout(trainer: Mapping[str, Any], cost: CostConfig) -> Layout:
    """Read the layout of the `trainer` group; `auto` devices are those of a full node."""
    devices: Any = trainer.get("devices", 1)
    if devices in ("auto", -1, "-1"):
        devices = cost.gpus_per_node
    elif isinstance(devices, (list, tuple)):
        devices = len(devices)
    gpus = int(devices) * int(trainer.get("num_nodes", 1))
    if trainer.get("strategy") == "fsdp2":
        return Layout(gpus, "fsdp2")
    return Layout(gpus, "single" if gpus == 1 else "ddp")


def stage_memory(
    config: RunConfig, stage: StageConfig, use: PackUse, layout: Layout, checkpointed: Collection[str]
) -> Memory:
    """Predict the peak of one GPU in a stage."""
    return peak_memory(
        config.model,
        use,
        precision=str(config.trainer.get("precision", DEFAULT_PRECISION)),
        trainable=stage.trainable,
        lora=stage.lora,
        checkpointed=checkpointed,
        layout=layout,
        accumulates=config.packs_per_step(stage) > layout.gpus,
    )


def smallest_layout(config: RunConfig, use: PackUse, usable_bytes: float) -> Fit | None:
    """Find the smallest layout all of whose stages fit, or None.

    Args:
        config: of the run.
        use: the fullest pack.
        usable_bytes: memory of one GPU that tensors may fill.
    """
    for layout, num_nodes in _layouts(config.cost):
        if any(config.packs_per_step(stage) % layout.gpus for stage in config.stages.values()):
            continue
        chosen = {stage.name: _fitting(config, stage, use, layout, usable_bytes) for stage in config.stages.values()}
        found = {name: pair for name, pair in chosen.items() if pair is not None}
        if found and len(found) == len(chosen):
            memory = max((memory for _, memory in found.values()), key=lambda m: m.total)
            return Fit(layout, num_nodes, {name: parts for name, (parts, _) in found.items()}, memory)
    return None


def _layouts(cost: CostConfig) -> Iterator[tuple[Layout, int]]:
    """Yield (layout, nodes): 1, 2, 4, ... GPUs of a node, then 1, 2, 4, ... full nodes."""
    inside = [2**i for i in range(MAX_DOUBLINGS) if 2**i < cost.gpus_per_node]
    full = [cost.gpus_per_node * 2**i for i in range(MAX_DOUBLINGS)]
    for gpus in (count for count in inside + full if count <= cost.max_gpus):
        for strategy in ("single",) if gpus == 1 else ("ddp", "fsdp2"):
            yield Layout(gpus, strategy), max(1, gpus // cost.gpus_per_node)


def _fitting(
    config: RunConfig, stage: StageConfig, use: PackUse, layout: Layout, usable_bytes: float
) -> tuple[tuple[str, ...], Memory] | None:
    """Return the least recomputation that fits, and the memory then needed."""
    for parts in checkpointing_choices(config):
        memory = stage_memory(config, stage, use, layout, parts)
        if memory.total <= usable_bytes:
            return parts, memory
    return None


def checkpointing_choices(config: RunConfig) -> list[tuple[str, ...]]:
    """List what may recompute, from nothing over the cheaper part to both."""
    per_token, _, _ = language_flops(config.model)
    encoder = sum(vision_flops(config.model)) * config.packing.max_tiles
    language = per_token * config.packing.max_tokens
    cheaper, dearer = ("vision", "language") if encoder <= language else ("language", "vision")
    return [(), (cheaper,), (dearer,), ("vision", "language")]
