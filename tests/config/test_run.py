import pytest

from internvl_lab.config import (
    CallbacksConfig,
    EvaluationConfig,
    ModelConfig,
    PackingConfig,
    RecipeConfig,
    RunConfig,
    StageConfig,
    SweepConfig,
    TilingConfig,
    ValidationConfig,
    VisionConfig,
)
from internvl_lab.config.compose import compose
from internvl_lab.errors import ConfigError


def test_a_named_stage_runs_instead_of_the_recipe():
    recipe = RecipeConfig(stages={"a": StageConfig("a"), "b": StageConfig("b")})
    assert list(RunConfig(recipe=recipe).stages) == ["a", "b"]
    assert list(RunConfig(recipe=recipe, stage=StageConfig("c")).stages) == ["c"]


def test_max_steps_per_stage_shortens_and_never_lengthens():
    recipe = RecipeConfig(stages={"a": StageConfig("a", max_steps=100), "b": StageConfig("b", max_steps=3)})
    stages = RunConfig(recipe=recipe, max_steps_per_stage=10).stages
    assert (stages["a"].max_steps, stages["b"].max_steps) == (10, 3)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: RunConfig(seed=-1), "seed=-1"),
        (lambda: RunConfig(seed=2**32), "seed=4294967296"),
        (lambda: RunConfig(max_steps_per_stage=0), "max_steps_per_stage=0"),
        (lambda: RunConfig(trainer={"devices": 0}), r"trainer\.devices=0"),
        (lambda: RunConfig(logger={"csv": {}}), r"logger\.csv"),
        (lambda: CallbacksConfig(hang_timeout_s=0.0), r"callbacks\.hang_timeout_s=0"),
        (lambda: ValidationConfig(every_steps=0), r"callbacks\.validation\.every_steps=0"),
        (lambda: ValidationConfig(samples_per_task=0), r"callbacks\.validation\.samples_per_task=0"),
        (lambda: ValidationConfig(max_pictures=-1), r"callbacks\.validation\.max_pictures=-1"),
        (lambda: EvaluationConfig(batch_size=0), r"evaluation\.batch_size=0"),
        (lambda: EvaluationConfig(max_new_tokens=0), r"evaluation\.max_new_tokens=0"),
        (lambda: EvaluationConfig(samples_per_task=0), r"evaluation\.samples_per_task=0"),
        (lambda: EvaluationConfig(jpeg_quality=101), r"evaluation\.jpeg_quality=101"),
        (lambda: SweepConfig("s", {"seed": [1]}, budget_shares=(0.0,)), r"sweep\.budget_shares=\[0\.0\]"),
        (lambda: SweepConfig("s", {"seed": [1]}, budget_shares=(1.0,), budget_flops=(1e9,)), "use one"),
        (lambda: SweepConfig("s", {"seed": [1]}, parts={"vision": ("seed=1",)}), r"sweep\.parts\.vision needs an axis"),
    ],
)
def test_impossible_values_name_the_key(make, key):
    with pytest.raises(ConfigError, match=key):
        make()


def test_the_largest_seed_passes():
    assert RunConfig(seed=2**32 - 1).seed == 2**32 - 1


def test_tiles_must_be_of_the_encoder_s_size():
    model = ModelConfig(vision=VisionConfig(image_size=112))
    RunConfig(model=model, tiling=TilingConfig(tile_size=112)).check_fit()
    with pytest.raises(ConfigError, match=r"tiling\.tile_size=448 must equal model\.vision\.image_size=112"):
        RunConfig(model=model).check_fit()


def test_a_sweep_over_what_does_not_train_is_refused():
    with pytest.raises(ConfigError, match="sweep loss: a study trains, and experiment probe_classification does not"):
        compose(["experiment=probe_classification", "sweep=loss"])


def test_a_sweep_knows_the_keys_that_its_axes_set():
    cases = {"a": {"recipe": "x"}, "b": {"++model/vision": "y"}}
    sweep = SweepConfig("s", {"seed": [1, 2], "encoder": cases}, parts={"vision": ("seed=1",)})
    assert sweep.keys == {"seed", "recipe", "model/vision"}
    assert sweep.axes["seed"] == (1, 2)


def test_a_shortened_stage_ends_its_schedule_with_it():
    stage = StageConfig("b", max_steps=100, schedule_steps=1000)
    config = RunConfig(recipe=RecipeConfig(stages={"b": stage}), max_steps_per_stage=10)
    assert (config.stages["b"].max_steps, config.stages["b"].schedule_steps) == (10, None)
    assert RunConfig(recipe=RecipeConfig(stages={"b": stage}), max_steps_per_stage=100).stages["b"] == stage


def test_a_run_needs_a_learning_rate():
    with pytest.raises(ConfigError, match=r"stage b: stage\.learning_rate=0"):
        RunConfig(recipe=RecipeConfig(stages={"b": StageConfig("b", learning_rate=0.0)})).check_fit()


def test_a_stage_s_packs_win_over_the_packing_s():
    config = RunConfig(packing=PackingConfig(packs_per_step=4))
    assert config.packs_per_step(StageConfig()) == 4
    assert config.packs_per_step(StageConfig(packs_per_step=1)) == 1
