"""Lay a cost plan out: one set of tables, for the terminal and for `plan.md`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from internvl_lab.config import RunConfig, StageConfig
from internvl_lab.constants import PARTS
from internvl_lab.models import FLOP_PARTS
from internvl_lab.models.devices import GIB
from internvl_lab.scaling.cost import Cost, StageCost, pack_bound
from internvl_lab.scaling.cost_layout import configured_layout, stage_memory
from internvl_lab.scaling.memory import Layout, Memory
from internvl_lab.scaling.rows import Row

MEMORY_KINDS = ("weights", "gradients", "optimizer", "activations", "logits", "communication")
_SHORT = ("weights", "grads", "AdamW", "activ.", "logits", "comm.")
"""Heads of `MEMORY_KINDS` that leave room for the numbers in 80 columns."""
MIB = 1 << 20
_TEXT = frozenset({"part", "name", "source", "stage", "trains", "mixture", "packs", "row", "layout", "fits on"})
"""Columns of words, to the left; all others hold numbers."""


@dataclass(frozen=True)
class Section:
    """Hold one table."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def print_section(section: Section, console: Console) -> None:
    """Print a table; words to the left, numbers to the right."""
    table = Table(title=section.title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    for column in section.columns:
        table.add_column(column, justify="left" if column in _TEXT else "right", overflow="fold")
    for row in section.rows:
        table.add_row(*map(escape, row))
    console.print(table)


def markdown(head: str, sections: Sequence[Section], lines: Sequence[str]) -> str:
    """Write the plan as Markdown."""
    text = [f"# Plan: {head}", ""]
    for section in sections:
        text += [f"## {section.title}", "", f"| {' | '.join(section.columns)} |"]
        text += ["|" + "|".join("---" if column in _TEXT else "--:" for column in section.columns) + "|"]
        text += [*(f"| {' | '.join(row)} |" for row in section.rows), ""]
    return "\n".join([*text, *(f"- {line.strip()}" for line in lines)]) + "\n"


def parts_section(config: RunConfig, counts: Mapping[str, int], weights: Mapping[str, str]) -> Section:
    """Name the parts, their parameters and where their weights come from."""
    rows: list[tuple[str, ...]] = [
        (part, getattr(config.model, part).name, f"{counts[part]:,}", weights[part]) for part in PARTS
    ]
    rows.append(("total", "", f"{counts['total']:,}", ""))
    return Section("parts", ("part", "name", "parameters", "source"), rows)


def stages_section(config: RunConfig, cost: Cost) -> Section:
    """Say what each stage trains and reads."""
    columns = ("stage", "trains", "share", "mixture", "rate", "steps", "packs/step")
    return Section("stages", columns, [_stage_row(config, stage) for stage in cost.stages])


def _stage_row(config: RunConfig, stage: StageCost) -> tuple[str, ...]:
    settings = config.stages[stage.name]
    return (
        stage.name,
        settings.learns if len(settings.trainable) < len(PARTS) else "everything",
        f"{stage.trained / stage.parameters:.2%}",
        settings.mixture,
        f"{settings.learning_rate:g}",
        f"{stage.steps:,}",
        f"{stage.packs_per_step:,}",
    )


def use_section(cost: Cost) -> Section:
    """Say how much each stage reads, a step and in all, and how long it takes."""
    columns = ("stage", "packs", "tokens/step", "tiles/step", "tokens", "tiles", "GPU hours")
    title = "data and time (packs as indexed, or full: at most)"
    return Section(title, columns, [_use_row(stage) for stage in cost.stages])


def _use_row(stage: StageCost) -> tuple[str, ...]:
    return (
        stage.name,
        "indexed" if stage.measured else "full",
        f"{stage.packs_per_step * stage.use.tokens:,.0f}",
        f"{stage.packs_per_step * stage.use.tiles:,.0f}",
        f"{stage.packs * stage.use.tokens:.3g}",
        f"{stage.packs * stage.use.tiles:.3g}",
        f"{stage.gpu_hours:,.3g}",
    )


def flops_section(cost: Cost) -> Section:
    """Split the operations of a step by part."""
    rows = [
        (stage.name, *(f"{stage.flops[part] / 1e12:,.4g}" for part in FLOP_PARTS), f"{stage.step_flops / 1e12:,.4g}")
        for stage in cost.stages
    ]
    return Section("TFLOP a step by part", ("stage", *FLOP_PARTS, "total"), rows)


def memory_section(config: RunConfig) -> Section:
    """Show the peak of one GPU for the configured layout, and beside it DDP and FSDP2 on as many GPUs, or on a node."""
    configured = configured_layout(config.trainer, config.cost)
    world = configured.gpus if configured.gpus > 1 else config.cost.gpus_per_node
    layouts = dict.fromkeys([configured, *(Layout(world, name) for name in ("ddp", "fsdp2") if world > 1)])
    found, bound = [], pack_bound(config)
    for stage in config.stages.values():
        for layout in layouts:
            if config.packs_per_step(stage) % layout.gpus == 0 or layout == configured:
                memory = stage_memory(config, stage, bound, layout, stage.gradient_checkpointing)
                found.append((stage, layout, memory))
    unit, name = (GIB, "GiB") if any(memory.total >= GIB for *_, memory in found) else (MIB, "MiB")
    rows = [(stage.name, _layout_cell(stage, layout), *_in(unit, memory)) for stage, layout, memory in found]
    return Section(f"peak memory of one GPU in {name}, packs full", ("stage", "layout", *_SHORT, "total"), rows)


def _layout_cell(stage: StageConfig, layout: Layout) -> str:
    recomputed = "".join(f", {part} recomputed" for part in stage.gradient_checkpointing)
    return layout_name(layout) + recomputed


def _in(unit: int, memory: Memory) -> list[str]:
    values = [getattr(memory, kind) / unit for kind in MEMORY_KINDS]
    return [f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in (*values, memory.total / unit)]


def layout_name(layout: Layout) -> str:
    """Name a layout shortly: `8 x fsdp2`."""
    return "1 GPU" if layout.gpus == 1 else f"{layout.gpus} x {layout.strategy}"


def layout_lines(config: RunConfig, cost: Cost) -> list[str]:
    """Say which layout is the smallest that fits, and how to ask for it."""
    settings, fit = config.cost, cost.smallest
    if fit is None:
        return [f"no layout of up to {settings.max_gpus} {settings.gpu} fits: try smaller packs (packing.max_tokens)"]
    nodes = f" on {fit.num_nodes} nodes" if fit.num_nodes > 1 else ""
    return [
        f"smallest layout that fits {settings.gpu} ({settings.reserve:.0%} of its memory kept free): "
        f"{layout_name(fit.layout)}{nodes}, {fit.memory.total / GIB:,.3g} GiB",
        f"  ask for it with: {shlex.join(fit.overrides(config)) or 'nothing more, it is the configured one'}",
    ]


def totals_line(config: RunConfig, costs: Sequence[Cost]) -> str:
    """Sum up what everything costs."""
    settings = config.cost
    hours, most = sum(cost.gpu_hours for cost in costs), "" if all(cost.measured for cost in costs) else "at most "
    flops = sum(cost.flops for cost in costs)
    rate = settings.price_per_gpu_hour
    price = "" if rate is None else f", {hours * rate:,.4g} at {rate:g} an hour"
    rows = f"{len(costs)} rows: " if len(costs) > 1 else ""
    return f"{rows}{most}{flops:.3g} FLOPs, {hours:,.3g} {settings.gpu} hours at {settings.mfu:.0%} MFU{price}"


def study_section(rows: Sequence[Row], costs: Sequence[Cost]) -> Section:
    """Give every row of a study its cost."""
    columns = ("#", "row", "params", "tokens", "tiles", "FLOPs", "GPU h", "GiB", "fits on")
    lines = [_study_row(number, *pair) for number, pair in enumerate(zip(rows, costs, strict=True), 1)]
    return Section(f"study of {len(rows)} rows (overrides in plan.json)", columns, lines)


def _study_row(number: int, row: Row, cost: Cost) -> tuple[str, ...]:
    parameters = cost.stages[-1].parameters if cost.stages else 0
    size = f"{parameters / 1e9:.3g}B" if parameters >= 1e9 else f"{parameters / 1e6:.3g}M"
    return (
        str(number),
        row.label,
        size,
        f"{cost.tokens:.2g}",
        f"{cost.tiles:.2g}",
        f"{cost.flops:.3g}",
        f"{cost.gpu_hours:,.3g}",
        f"{cost.peak_memory_bytes / GIB:,.3g}",
        "none" if cost.smallest is None else layout_name(cost.smallest.layout),
    )
