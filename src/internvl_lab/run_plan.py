"""Answer `plan=true`: what would run, from which weights, at what cost. Builds nothing but shapes.

::

    RunConfig ── packs measured where the data are indexed ── scaling.plan_row ──> Cost ──> tables ──> terminal
       └ with a sweep: one Cost a row                                                         └──> plan.md, plan.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from internvl_lab.atomic import write_atomic
from internvl_lab.checkpoints import resolve_source
from internvl_lab.config import RunConfig, SourceConfig
from internvl_lab.constants import PARTS
from internvl_lab.data.miniworld import miniworld_root
from internvl_lab.errors import CheckpointError, ConfigError, MissingWeightsError
from internvl_lab.models import build_on_meta, count_parameters
from internvl_lab.prepare import MINIWORLD_PREFIX, build_template, run_hash
from internvl_lab.run_study import row_config, study_hash, study_rows
from internvl_lab.scaling import Cost, Row, plan_row
from internvl_lab.scaling.cost_packs import measure_packs
from internvl_lab.scaling.cost_tables import (
    Section,
    flops_section,
    layout_lines,
    markdown,
    memory_section,
    parts_section,
    print_section,
    stages_section,
    study_section,
    totals_line,
    use_section,
)
from internvl_lab.scaling.memory import Memory
from internvl_lab.scaling.memory_blocks import PackUse

PLAN_FILE = "plan"
"""Name of what is written, without `.md` and `.json`."""


@dataclass(frozen=True)
class Plan:
    """Hold what is shown and saved."""

    head: str
    sections: list[Section]
    lines: list[str]
    data: dict[str, Any]
    """The same for machines."""


def show_plan(
    config: RunConfig,
    settings: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    study: bool = False,
    console: Console | None = None,
) -> Path:
    """Print the plan, save it beside where the run's results will lie, and return that folder; needs no weights.

    Args:
        config: of the run, or of the study.
        settings: the same as plain containers; they name the folder.
        overrides: those of the command line, which every row of a study gets too.
        study: whether the sweep would expand.
        console: where to print.
    Raises:
        ConfigError: `cost.gpu` is unknown, a row is impossible, or the folder cannot be written.
    """
    console = console or Console()
    plan = plan_study(config, overrides) if study else plan_run(config)
    console.print(plan.head, highlight=False)
    for section in plan.sections:
        print_section(section, console)
    for line in plan.lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    name = f"study-{study_hash(config, settings)}" if study else run_hash(config, settings)
    folder = Path(config.paths.output_dir) / config.experiment / name
    try:
        write_atomic(folder / f"{PLAN_FILE}.json", json.dumps(plan.data, indent=2) + "\n")
        write_atomic(folder / f"{PLAN_FILE}.md", markdown(plan.head, plan.sections, plan.lines))
    except OSError as error:
        raise ConfigError(f"the plan cannot be saved in paths.output_dir={config.paths.output_dir}: {error}") from error
    console.print(f"saved: {folder / PLAN_FILE}.md and .json", highlight=False, soft_wrap=True)
    return folder


def plan_run(config: RunConfig) -> Plan:
    """Plan one run: its parts and their weights, its stages and what each costs."""
    cost = plan_row(config, pack_means(config))
    counts = count_parameters(build_on_meta(config.model))
    weights = {part: _weights_state(config.init_from.part(part)) for part in PARTS}
    sections = [
        parts_section(config, counts, weights),
        stages_section(config, cost),
        use_section(cost),
        flops_section(cost),
        memory_section(config),
    ]
    data = {"experiment": config.experiment, "parameters": counts, "weights": weights, **cost_data(config, cost)}
    return Plan(_head(config), sections, [*layout_lines(config, cost), totals_line(config, [cost])], data)


def plan_study(config: RunConfig, overrides: Sequence[str]) -> Plan:
    """Plan every row of a sweep, and their sum."""
    rows = study_rows(config, overrides)
    configs = [row_config(row, overrides) for row in rows]
    costs = [plan_row(each, pack_means(each)) for each in configs]
    data = {
        "experiment": config.experiment,
        "rows": [_row_data(*each) for each in zip(rows, configs, costs, strict=True)],
        "total": totals(costs),
    }
    return Plan(_head(config), [study_section(rows, costs)], [totals_line(config, costs)], data)


def pack_means(config: RunConfig) -> dict[str, PackUse]:
    """Measure the mean pack of every stage whose data are indexed on this machine, stage name to pack."""
    try:
        template = build_template(config)
    except (MissingWeightsError, CheckpointError):
        return {}
    means = {}
    for stage in config.stages.values():
        sources = _local_sources(config, stage.mixture)
        use = measure_packs(config, stage, sources, template) if sources else None
        if use is not None:
            means[stage.name] = use
    return means


def _local_sources(config: RunConfig, mixture: str) -> dict[str, SourceConfig]:
    """Put miniworld's folders into a mixture, without generating them; empty = its data do not exist yet."""
    sources, settings = dict(config.data.mixtures.get(mixture, {})), config.data.miniworld
    for name, source in sources.items():
        if source.shards.startswith(MINIWORLD_PREFIX):
            split = source.shards.removeprefix(MINIWORLD_PREFIX)
            if settings is None or (split == "finetune" and (settings.loop_share or settings.filtered)):
                return {}  # looping answers are planted beside the sound split when the run starts
            folder = miniworld_root(settings, config.paths.data_dir) / split
            sources[name] = replace(source, shards=str(folder))
    return sources


def _head(config: RunConfig) -> str:
    return f"experiment {config.experiment}, scale {config.scale.name}, seed {config.seed}"


def _weights_state(source: str | None) -> str:
    if source is None:
        return "random"
    try:
        resolve_source(source)
    except (MissingWeightsError, CheckpointError):
        return f"{source} (missing)"
    return source


def totals(costs: Sequence[Cost]) -> dict[str, float | None]:
    """Add costs up; the memory is that of the largest, the price None where there is none."""
    prices = [cost.price for cost in costs if cost.price is not None]
    return {
        "flops": sum(cost.flops for cost in costs),
        "gpu_hours": sum(cost.gpu_hours for cost in costs),
        "price": sum(prices) if prices else None,
        "tokens": sum(cost.tokens for cost in costs),
        "tiles": sum(cost.tiles for cost in costs),
        "peak_memory_bytes": max((cost.peak_memory_bytes for cost in costs), default=0.0),
    }


def cost_data(config: RunConfig, cost: Cost) -> dict[str, Any]:
    """Return a cost as plain containers for `plan.json`."""
    fit = cost.smallest
    return {
        "total": totals([cost]),
        "counted_with": asdict(config.cost),
        "layout": asdict(cost.layout),
        "smallest_layout": None
        if fit is None
        else {**asdict(fit.layout), "num_nodes": fit.num_nodes, "overrides": fit.overrides(config)}
        | {"memory_bytes": _memory_data(fit.memory)},
        "stages": [
            {
                "name": stage.name,
                "steps": stage.steps,
                "packs_per_step": stage.packs_per_step,
                "pack": asdict(stage.use),
                "measured": stage.measured,
                "parameters": stage.parameters,
                "trained": stage.trained,
                "step_flops": dict(stage.flops),
                "memory_bytes": _memory_data(stage.memory),
                "gpu_hours": stage.gpu_hours,
            }
            for stage in cost.stages
        ],
    }


def _memory_data(memory: Memory) -> dict[str, float]:
    return {**vars(memory), "total": memory.total}


def _row_data(row: Row, config: RunConfig, cost: Cost) -> dict[str, Any]:
    return {"label": row.label, "overrides": list(row.overrides), **cost_data(config, cost)}
