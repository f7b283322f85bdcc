"""Budgets of a study's rows: shares of the tokens, and equal FLOPs held to 2 %."""

from __future__ import annotations

from dataclasses import replace

import pytest

from internvl_lab.config import LanguageConfig, ModelConfig, RecipeConfig, RunConfig, StageConfig, SweepConfig
from internvl_lab.errors import ConfigError
from internvl_lab.scaling import Row, run_flops, stage_flops, with_budgets
from internvl_lab.scaling.budgets import equal_steps, shared_steps

STAGES = {
    "stage1": StageConfig("stage1", ("projector",), max_steps=150, warmup_steps=10, packs_per_step=1),
    "stage2": StageConfig("stage2", ("vision", "projector", "language"), max_steps=1100, warmup_ratio=0.03),
}
SMALL = RunConfig(recipe=RecipeConfig("two", STAGES))
LARGE = replace(SMALL, model=ModelConfig(language=LanguageConfig(num_hidden_layers=48)))
ROWS = [Row("small", ("a=1",)), Row("large", ("a=2",))]


def config_of(row: Row) -> RunConfig:
    return {"small": SMALL, "large": LARGE}[row.label]


def with_steps(config: RunConfig, row: Row) -> RunConfig:
    """Apply the steps of a row's overrides."""
    steps = dict(override.split("=") for override in row.overrides)
    stages = {
        name: replace(stage, max_steps=int(steps[f"recipe.stages.{name}.max_steps"]))
        for name, stage in config.recipe.stages.items()
    }
    return replace(config, recipe=replace(config.recipe, stages=stages))


def test_a_step_costs_its_packs() -> None:
    one, many = STAGES["stage1"], replace(STAGES["stage1"], packs_per_step=8)
    assert stage_flops(SMALL, many) == 8 * stage_flops(SMALL, one)
    assert run_flops(SMALL) == 150 * stage_flops(SMALL, one) + 1100 * stage_flops(SMALL, STAGES["stage2"])


@pytest.mark.parametrize("budget_share", [0.05, 0.3, 3.0])
def test_rows_of_equal_flops_are_equal_within_2_percent(budget_share: float) -> None:
    budget = budget_share * run_flops(SMALL)
    rows = with_budgets(ROWS, SweepConfig("s", {"a": [1, 2]}, budget_flops=(budget,)), config_of)
    assert [row.label for row in rows] == [f"small, flops={budget:.3g}", f"large, flops={budget:.3g}"]
    configs = [with_steps(config, row) for config, row in zip((SMALL, LARGE), rows, strict=True)]
    assert configs[1].stages["stage2"].max_steps < configs[0].stages["stage2"].max_steps
    for config in configs:
        assert run_flops(config) == pytest.approx(budget, rel=0.02)


def test_shares_shrink_steps_and_warm_up() -> None:
    rows = with_budgets(ROWS[:1], SweepConfig("s", {"a": [1]}, budget_shares=(1.0, 0.1)), config_of)
    assert [row.label for row in rows] == ["small, share=1", "small, share=0.1"]
    assert rows[1].overrides == (
        "a=1",
        "recipe.stages.stage1.max_steps=15",
        "recipe.stages.stage1.warmup_steps=1",
        "recipe.stages.stage2.max_steps=110",
    )
    assert "recipe.stages.stage1.warmup_steps=10" in rows[0].overrides


def test_no_stage_is_lost() -> None:
    assert shared_steps(SMALL, 1e-6) == {"stage1": 1, "stage2": 1}


def test_a_single_stage_is_set_where_it_stands() -> None:
    alone = replace(SMALL, stage=STAGES["stage2"])
    (row,) = with_budgets(ROWS[:1], SweepConfig("s", {"a": [1]}, budget_shares=(0.5,)), lambda _: alone)
    assert row.overrides == ("a=1", "stage.max_steps=550")


def test_without_budgets_rows_stay() -> None:
    assert with_budgets(ROWS, SweepConfig("s", {"a": [1, 2]}), config_of) == ROWS


def test_equal_budgets_are_refused() -> None:
    with pytest.raises(ConfigError, match="'small, share=1' are the same run"):
        with_budgets(ROWS[:1], SweepConfig("s", {"a": [1]}, budget_shares=(1.0, 1.0)), config_of)


def test_a_budget_below_one_step_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sweep\.budget_flops: 1e\+03 is below one step of each stage"):
        equal_steps(SMALL, 1e3)


def test_the_baseline_is_a_row_with_its_budget() -> None:
    sweep = SweepConfig("s", {"a": [1]}, budget_shares=(0.5, 1.0), baseline="small, share=1")
    assert len(with_budgets(ROWS[:1], sweep, config_of)) == 2
    with pytest.raises(ConfigError, match=r"sweep\.baseline='small'"):
        with_budgets(ROWS[:1], replace(sweep, baseline="small"), config_of)


def test_equal_budgets_are_refused_but_where_steps_are_capped() -> None:
    sweep = SweepConfig("s", {"a": [1]}, budget_shares=(0.5, 0.5))
    with pytest.raises(ConfigError, match="are the same run"):
        with_budgets(ROWS[:1], sweep, config_of)
    capped = replace(SMALL, max_steps_per_stage=2)
    rows = with_budgets(ROWS[:1], replace(sweep, budget_shares=(0.3, 0.1)), lambda row: capped)
    assert [row.overrides for row in rows] == 2 * [rows[0].overrides]
