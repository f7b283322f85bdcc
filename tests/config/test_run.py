from internvl_lab.config import RecipeConfig, RunConfig, StageConfig


def test_a_named_stage_runs_instead_of_the_recipe():
    recipe = RecipeConfig(stages={"a": StageConfig("a"), "b": StageConfig("b")})
    assert list(RunConfig(recipe=recipe).stages) == ["a", "b"]
    assert list(RunConfig(recipe=recipe, stage=StageConfig("c")).stages) == ["c"]


def test_max_steps_per_stage_shortens_and_never_lengthens():
    recipe = RecipeConfig(stages={"a": StageConfig("a", max_steps=100), "b": StageConfig("b", max_steps=3)})
    stages = RunConfig(recipe=recipe, max_steps_per_stage=10).stages
    assert (stages["a"].max_steps, stages["b"].max_steps) == (10, 3)
