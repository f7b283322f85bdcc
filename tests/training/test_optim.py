"""Parameter groups and learning rates."""

from __future__ import annotations

import math
from types import ModuleType

import pytest
import torch
from torch import nn

from internvl_lab.config import OptimizerConfig, SchedulerConfig, StageConfig
from internvl_lab.training.optim import (
    build_optimizer,
    build_scheduler,
    group_rates,
    learning_rate_factor,
    split_by_decay,
)


def names(model: nn.Module, parameters: list[torch.Tensor]) -> set[str]:
    """Return the names of parameters."""
    wanted = {id(p) for p in parameters}
    return {name for name, p in model.named_parameters() if id(p) in wanted}


def test_biases_and_norms_do_not_decay(tiny: ModuleType) -> None:
    model = tiny.tiny_model()
    decay, no_decay = split_by_decay(model)
    assert names(model, no_decay) == {
        name for name, _ in model.named_parameters() if name.endswith("bias") or "norm" in name
    }
    assert len(decay) + len(no_decay) == len(list(model.parameters()))
    assert {"lm_head.weight", "language_model.embed_tokens.weight"} <= names(model, decay)


def test_transformers_trainer_would_split_alike(tiny: ModuleType) -> None:
    from transformers import Trainer

    model = tiny.tiny_model()
    theirs = set(Trainer.get_decay_parameter_names(None, model))
    assert names(model, split_by_decay(model)[0]) == theirs


def test_frozen_parameters_are_left_out_and_groups_are_named(tiny: ModuleType) -> None:
    model = tiny.tiny_model()
    model.requires_grad_(False)
    model.lm_head.requires_grad_(True)
    stage = tiny.tiny_stage(10, weight_decay=0.25, learning_rate=3e-4)
    optimizer = build_optimizer(model, stage, OptimizerConfig(beta1=0.8, beta2=0.7, eps=1e-5))
    assert [(g["name"], g["weight_decay"], g["lr"], len(g["params"])) for g in optimizer.param_groups] == [
        ("decay", 0.25, 3e-4, 1)
    ]
    assert optimizer.defaults["betas"] == (0.8, 0.7)
    assert optimizer.defaults["eps"] == 1e-5
    assert optimizer.defaults["fused"] is True


def test_no_decay_group_does_not_decay(tiny: ModuleType) -> None:
    optimizer = build_optimizer(tiny.tiny_model(), tiny.tiny_stage(10, weight_decay=0.25), OptimizerConfig())
    assert {g["name"]: g["weight_decay"] for g in optimizer.param_groups} == {"decay": 0.25, "no_decay": 0.0}


def factors(steps: int, warmup: int, name: str, min_ratio: float = 0.0) -> list[float]:
    """Return the factor of every step."""
    stage = StageConfig(max_steps=steps, warmup_steps=warmup)
    return [learning_rate_factor(step, stage, SchedulerConfig(name, min_ratio)) for step in range(steps + 1)]


def test_warm_up_is_linear_and_never_zero() -> None:
    assert factors(10, 3, "cosine")[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert factors(10, 0, "cosine")[0] == 1.0


@pytest.mark.parametrize(("name", "half", "end"), [("cosine", 0.5, 0.0), ("linear", 0.5, 0.0), ("constant", 1.0, 1.0)])
def test_shapes(name: str, half: float, end: float) -> None:
    values = factors(10, 0, name)
    assert values[5] == pytest.approx(half)
    assert values[10] == pytest.approx(end, abs=1e-12)
    assert factors(8, 0, "cosine")[2] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_floor() -> None:
    assert factors(10, 0, "linear", 0.1)[10] == pytest.approx(0.1)
    assert factors(10, 0, "cosine", 0.1)[5] == pytest.approx(0.55)


def test_warm_up_ratio_wins_over_steps() -> None:
    stage = StageConfig(max_steps=100, warmup_steps=7, warmup_ratio=0.03)
    assert learning_rate_factor(0, stage, SchedulerConfig()) == pytest.approx(1 / 4)


def test_a_run_may_stop_long_before_its_schedule_ends():
    stage = StageConfig(max_steps=100, schedule_steps=10_000)
    last = learning_rate_factor(99, stage, SchedulerConfig())
    assert 0.999 < last < 1
    assert last == learning_rate_factor(99, StageConfig(max_steps=10_000), SchedulerConfig())


def test_scheduler_state_is_plain_and_restores_the_rate(tiny: ModuleType) -> None:
    stage = tiny.tiny_stage(10)

    def make() -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        optimizer = build_optimizer(tiny.tiny_model(), stage, OptimizerConfig())
        return optimizer, build_scheduler(optimizer, stage, SchedulerConfig())

    optimizer, scheduler = make()
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    state = scheduler.state_dict()
    assert state["lr_lambdas"] == [None, None]
    other_optimizer, other = make()
    other_optimizer.load_state_dict(optimizer.state_dict())
    other.load_state_dict(state)
    assert dict(group_rates(other_optimizer)) == dict(group_rates(optimizer))
    assert dict(group_rates(optimizer)).keys() == {"decay", "no_decay"}
