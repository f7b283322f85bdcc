"""Answer `plan=true`: what would run, at what size, from which weights. Builds nothing but shapes."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from internvl_lab.checkpoints import resolve_source
from internvl_lab.config import RunConfig, StageConfig
from internvl_lab.constants import PARTS
from internvl_lab.errors import CheckpointError, MissingWeightsError
from internvl_lab.models import build_on_meta, count_parameters, step_flops
from internvl_lab.scaling import describe, expand


def print_plan(config: RunConfig, console: Console | None = None) -> None:
    """Print parts and their weights, then the stages with their cost; needs no weights and exits clean."""
    console = console or Console()
    counts = count_parameters(build_on_meta(config.model))
    console.print(f"experiment {config.experiment}, scale {config.scale.name}, seed {config.seed}")
    console.print(_parts_table(config, counts))
    console.print(_stages_table(config))
    if config.sweep.axes:
        console.print(describe(expand(config.sweep)))


def _parts_table(config: RunConfig, counts: dict[str, int]) -> Table:
    table = Table("part", "name", "parameters", "weights", title="parts", box=box.SIMPLE)
    for part in PARTS:
        name = getattr(config.model, part).name
        table.add_row(part, name, f"{counts[part]:,}", _weights_state(config.init_from.part(part)))
    table.add_row("total", "", f"{counts['total']:,}", "")
    return table


def _weights_state(source: str | None) -> str:
    if source is None:
        return "random"
    try:
        resolve_source(source)
    except (MissingWeightsError, CheckpointError):
        return f"{source} (missing)"
    return source


def _stages_table(config: RunConfig) -> Table:
    columns = ("stage", "trains", "steps", "packs", "rate", "mixture", "TFLOP/step")
    table = Table(*columns, title="stages (packs a step; TFLOP a step at most)", box=box.SIMPLE)
    for stage in config.stages.values():
        packs = config.packs_per_step(stage)
        table.add_row(
            stage.name,
            stage.learns if len(stage.trainable) < len(PARTS) else "everything",
            f"{stage.max_steps:,}",
            str(packs),
            f"{stage.learning_rate:g}",
            stage.mixture,
            f"{packs * _pack_flops(config, stage) / 1e12:,.3g}",
        )
    return table


def _pack_flops(config: RunConfig, stage: StageConfig) -> float:
    """Bound the required FLOPs of one pack: both budgets full, one sample, every token supervised."""
    tokens = config.packing.max_tokens
    return step_flops(
        config.model,
        tokens=tokens,
        sum_sq=tokens**2,
        tiles=config.packing.max_tiles,
        supervised_rows=tokens,
        trainable=stage.trainable,
        adapted=stage.lora.parts,
    )
