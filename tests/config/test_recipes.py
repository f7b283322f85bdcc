"""The published recipes, value by value. Source: InternVL 2.5, table 3; spec section 3."""

from __future__ import annotations

from functools import cache

import pytest

from internvl_lab.config import RunConfig, StageConfig
from internvl_lab.config.compose import compose

SIZES = ("1b", "2b", "4b", "8b", "26b", "38b", "78b")
WEIGHT_DECAY = {"1b": 0.01, "2b": 0.01, "4b": 0.01, "8b": 0.05, "26b": 0.05, "38b": 0.05, "78b": 0.05}
DROP_PATH = {"1b": 0.1, "2b": 0.1, "4b": 0.1, "8b": 0.1, "26b": 0.4, "38b": 0.4, "78b": 0.4}
STAGE2_RATE = {"1b": 4e-5, "2b": 4e-5, "4b": 4e-5, "8b": 4e-5, "26b": 2e-5, "38b": 2e-5, "78b": 2e-5}
STAGE2_STEPS = {"1b": 22000, "2b": 22000, "4b": 11000, "8b": 5500, "26b": 5500, "38b": 5500, "78b": 5500}
TOKENS = {
    "1b": {"stage1": 191e9, "stage2": 176e9},
    "2b": {"stage1": 277e9, "stage2": 176e9},
    "4b": {"stage1": 164e9, "stage2": 88e9},
    "8b": {"stage1": 22e9, "stage1_5": 76e9, "stage2": 44e9},
    "26b": {"stage1": 31e9, "stage1_5": 146e9, "stage2": 44e9},
    "38b": {"stage1": 107e9, "stage2": 44e9},
    "78b": {"stage1": 76e9, "stage2": 44e9},
}
FILL = 0.954
"""Share of the token slots that the published runs used."""
FIRST_ENCODER = {"8b": "weights/InternViT-300M-448px", "26b": "weights/InternViT-6B-448px-V1-5"}


@pytest.fixture(params=SIZES)
def size(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@cache
def published(size: str) -> RunConfig:
    return compose([f"model=internvl2_5_{size}", f"recipe=internvl2_5_{size}"])


def test_stages_and_what_they_train(size: str) -> None:
    config = published(size)
    assert config.recipe.name == f"internvl2_5_{size}"
    assert list(config.stages) == list(TOKENS[size])
    trainable = {
        "stage1": ("projector",),
        "stage1_5": ("vision", "projector"),
        "stage2": ("vision", "projector", "language"),
    }
    assert {name: stage.trainable for name, stage in config.stages.items()} == {n: trainable[n] for n in TOKENS[size]}
    mixtures = {"stage1": "pretrain", "stage1_5": "pretrain", "stage2": "finetune"}
    assert {name: stage.mixture for name, stage in config.stages.items()} == {n: mixtures[n] for n in TOKENS[size]}


def test_rates_decay_and_drop_path(size: str) -> None:
    stages = published(size).stages
    rates = {"stage1": 2e-4, "stage1_5": 1e-5, "stage2": STAGE2_RATE[size]}
    drops = {"stage1": 0.0, "stage1_5": DROP_PATH[size], "stage2": DROP_PATH[size]}
    for name, stage in stages.items():
        assert (name, stage.learning_rate) == (name, rates[name])
        assert (name, stage.drop_path_rate) == (name, drops[name])
        assert (name, stage.weight_decay) == (name, WEIGHT_DECAY[size])


def test_batches_and_limits(size: str) -> None:
    config = published(size)
    packs = {"stage1": 512, "stage1_5": 1024, "stage2": 512}
    assert {name: config.packs_per_step(stage) for name, stage in config.stages.items()} == {
        name: packs[name] for name in TOKENS[size]
    }
    assert (config.packing.max_tokens, config.packing.max_tiles) == (16384, 48)
    assert config.data.loss_averaging == "square"
    assert config.data.jpeg.enabled
    assert (config.data.jpeg.min_quality, config.data.jpeg.max_quality) == (75, 100)


def test_steps_spend_the_published_tokens(size: str) -> None:
    config = published(size)
    for name, stage in config.stages.items():
        tokens = stage.max_steps * config.packs_per_step(stage) * config.packing.max_tokens * FILL
        assert tokens == pytest.approx(TOKENS[size][name], rel=0.01), name
    assert config.stages["stage2"].max_steps == STAGE2_STEPS[size]


def test_schedules(size: str) -> None:
    config = published(size)
    assert (config.scheduler.name, config.scheduler.min_ratio) == ("cosine", 0.0)

    def schedule(stage: StageConfig) -> tuple[int | None, int]:
        return stage.schedule_steps, stage.num_warmup_steps

    expected = dict.fromkeys(TOKENS[size], (100_000, 100)) | {"stage2": (None, int(0.03 * STAGE2_STEPS[size]))}
    assert {name: schedule(stage) for name, stage in config.stages.items()} == expected
    assert (config.optimizer.beta1, config.optimizer.beta2, config.optimizer.eps) == (0.9, 0.999, 1e-8)


def test_only_the_donors_start_from_the_encoder_before_v2_5(size: str) -> None:
    config = published(size)
    own = config.model.vision.weights
    assert config.init_from.vision == FIRST_ENCODER.get(size, own)
    assert own is not None and own.endswith("V2_5")
    assert (config.init_from.projector, config.init_from.language) == (None, config.model.language.weights)


def test_the_command_line_still_wins() -> None:
    config = compose(["model=internvl2_5_8b", "recipe=internvl2_5_8b", "init_from.vision=mine", "trainer=fsdp"])
    assert config.init_from.vision == "mine"
    config = compose(["model=internvl2_5_8b", "recipe=internvl2_5_8b", "max_steps_per_stage=50"])
    assert [(s.max_steps, s.schedule_steps) for s in config.stages.values()] == [(50, None)] * 3
