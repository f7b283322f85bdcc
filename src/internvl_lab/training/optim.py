"""AdamW with two parameter groups, and the learning rate over the steps of a stage."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from internvl_lab.config import OptimizerConfig, SchedulerConfig, StageConfig


def split_by_decay(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Split the trainable parameters into those with weight decay and those without.

    Returns:
        (decay, no_decay); biases and the weights of norm layers do not decay.
    Source: transformers' Trainer.get_decay_parameter_names, which the authors train with.
    """
    exempt = {id(p) for p in _biases_and_norms(model)}
    trainable = [p for p in model.parameters() if p.requires_grad]
    return [p for p in trainable if id(p) not in exempt], [p for p in trainable if id(p) in exempt]


def _biases_and_norms(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        is_norm = "norm" in type(module).__name__.lower()
        for name, parameter in module.named_parameters(recurse=False):
            if is_norm or name == "bias" or name.endswith("_bias"):
                yield parameter


def build_optimizer(model: nn.Module, stage: StageConfig, config: OptimizerConfig) -> AdamW:
    """Build AdamW over the trainable parameters, in groups named `decay` and `no_decay` (empty ones left out)."""
    decay, no_decay = split_by_decay(model)
    groups = [
        {"name": "decay", "params": decay, "weight_decay": stage.weight_decay},
        {"name": "no_decay", "params": no_decay, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return AdamW(
        groups,
        lr=stage.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,  # on CPU too: 34 ms a step against 130 ms (foreach) at 25 M parameters, one thread
    )


def learning_rate_factor(step: int, stage: StageConfig, config: SchedulerConfig) -> float:
    """Return the learning rate of a step over the peak rate.

    Args:
        step: optimizer step, counted from 0.
        stage: gives the warm-up and where the schedule ends: `schedule_steps`, else `max_steps`.
        config: shape and floor.

    Returns:
        Linear from 1 / (warm-up + 1) up to 1 at step = warm-up (no step is wasted at rate 0), then the shape
        down towards `min_ratio`, which it would reach at the schedule's end.
    Source: transformers' get_cosine_schedule_with_warmup, but for the first step's rate, which is 0 there.
    """
    warmup = stage.num_warmup_steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    last = stage.max_steps if stage.schedule_steps is None else stage.schedule_steps
    progress = min(1.0, (step - warmup) / max(1, last - warmup))
    shape = {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress, "constant": 1.0}[config.name]
    return config.min_ratio + (1 - config.min_ratio) * shape


def build_scheduler(optimizer: Optimizer, stage: StageConfig, config: SchedulerConfig) -> LambdaLR:
    """Build the schedule; its state is the step alone, so a resumed run has the same rates to the last bit."""
    return LambdaLR(optimizer, lambda step: learning_rate_factor(step, stage, config))


def group_rates(optimizer: Optimizer) -> Iterable[tuple[str, float]]:
    """Yield (group name, learning rate) of every parameter group."""
    return ((group.get("name", str(i)), float(group["lr"])) for i, group in enumerate(optimizer.param_groups))
