"""Give the rows of a study their training budgets: shares of the tokens, or equal FLOPs.

::

    Row ─ its RunConfig ─ steps of every stage ─ x share (budget_shares), or x budget / cost (budget_flops)
        ─> Row with stage.max_steps and warm-up as overrides, as a person would type them

FLOPs are those of `models.flops` at the pack that packing makes on average. That average belongs to the data; the one
here was measured on miniworld, where 1,100 steps of the quickstart's three stages then cost 0.7 % less than its
metrics.csv counts. With quite another pack, rows whose encoders and language models differ most (300M + 0.5B, 6B + 20B)
drift apart by up to 12 %. What a run really spent stands in its metrics.csv.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from internvl_lab.config import RunConfig, StageConfig, SweepConfig
from internvl_lab.errors import ConfigError
from internvl_lab.models import step_flops
from internvl_lab.scaling.rows import Row, find_baseline, refuse_equal


@dataclass(frozen=True)
class MeanPack:
    """Describe the average pack as shares of its limits."""

    token_fill: float
    tile_fill: float
    sample_share: float
    """Sum of squared sample lengths over (tokens of the pack)^2: 1 / number of samples, if all were equally long."""
    supervised_share: float
    """Tokens with a label."""
    num_samples: int
    """Of them, `packing=unpacked` makes as many packs."""


MEAN_PACK = MeanPack(token_fill=0.99, tile_fill=0.56, sample_share=0.064, supervised_share=0.17, num_samples=20)
"""Mean of 60 packs of miniworld's `finetune` at 2048 tokens and 64 tiles (`pretrain`: 0.97, 0.62, 0.068, 0.19)."""


def stage_flops(config: RunConfig, stage: StageConfig, pack: MeanPack = MEAN_PACK) -> float:
    """Return the required FLOPs of one optimizer step of a stage, over all ranks."""
    tokens = pack.token_fill * config.packing.max_tokens
    tiles = min(pack.tile_fill * config.packing.max_tiles, tokens / config.model.num_visual_tokens)
    packs = config.packs_per_step(stage) / (pack.num_samples if config.packing.policy == "single" else 1)
    return packs * step_flops(
        config.model,
        tokens=tokens,
        sum_sq=pack.sample_share * tokens**2,
        tiles=tiles,
        supervised_rows=pack.supervised_share * tokens,
        trainable=stage.trainable,
        adapted=stage.lora.parts,
    )


def run_flops(config: RunConfig) -> float:
    """Return the required FLOPs of training all stages."""
    return sum(stage.max_steps * stage_flops(config, stage) for stage in config.stages.values())


def with_budgets(rows: Sequence[Row], sweep: SweepConfig, config_of: Callable[[Row], RunConfig]) -> list[Row]:
    """Multiply rows by the budgets of a sweep; rows of a sweep without budgets are returned as they are.

    Args:
        rows: from `expand`.
        sweep: with `budget_shares`, `budget_flops`, or neither.
        config_of: composes the configuration of a row.
    Raises:
        ConfigError: a budget below one step of a stage, two equal ones, or a baseline that is no row.
    """
    if not (sweep.budget_shares or sweep.budget_flops):
        return list(rows)
    found: list[Row] = []
    capped = False
    for row in rows:
        config = config_of(row)
        capped |= config.max_steps_per_stage is not None
        for share in sweep.budget_shares:
            found.append(_extended(row, config, shared_steps(config, share), f"share={share:g}"))
        for budget in sweep.budget_flops:
            found.append(_extended(row, config, equal_steps(config, budget), f"flops={budget:.3g}"))
    if not capped:  # two steps a stage (`debug=tiny`) leave little of a share
        refuse_equal(found)
    find_baseline(found, sweep.baseline)
    return found


def shared_steps(config: RunConfig, share: float) -> dict[str, int]:
    """Return the steps of each stage for a share of its tokens, at least 1."""
    return {name: max(1, round(share * stage.max_steps)) for name, stage in config.stages.items()}


def equal_steps(config: RunConfig, budget: float) -> dict[str, int]:
    """Return the steps of each stage so that all of them together spend `budget` FLOPs.

    The stages keep the proportions of their steps; the last one takes up what rounding left.

    Raises:
        ConfigError: the budget does not pay one step of each stage.
    """
    share = budget / run_flops(config)
    steps = shared_steps(config, share)
    costs = {name: stage_flops(config, stage) for name, stage in config.stages.items()}
    last = list(steps)[-1]
    steps[last] = round((budget - sum(steps[name] * costs[name] for name in steps if name != last)) / costs[last])
    if steps[last] < 1:
        least = sum(costs.values())
        raise ConfigError(f"sweep.budget_flops: {budget:.3g} is below one step of each stage, {least:.3g} FLOPs")
    return steps


def _extended(row: Row, config: RunConfig, steps: Mapping[str, int], label: str) -> Row:
    """Add the steps to a row, and a warm-up that shrinks with them."""
    overrides = []
    for name, stage in config.stages.items():
        prefix = "stage" if config.stage is not None else f"recipe.stages.{name}"
        overrides.append(f"{prefix}.max_steps={steps[name]}")
        if stage.warmup_ratio is None and stage.warmup_steps:
            warmup = round(stage.warmup_steps * min(1.0, steps[name] / stage.max_steps))
            overrides.append(f"{prefix}.warmup_steps={warmup}")
    return replace(row, label=f"{row.label}, {label}", overrides=(*row.overrides, *overrides))
