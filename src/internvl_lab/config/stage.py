"""A stage is data: what trains, at which rate, for how long."""

from __future__ import annotations

from dataclasses import dataclass, field

from internvl_lab.config.checks import above_zero, at_least, share
from internvl_lab.constants import PARTS
from internvl_lab.errors import ConfigError


@dataclass(frozen=True)
class StageConfig:
    """Describe one training stage. Source of the published values: InternVL 2.5, table 3; spec section 3."""

    name: str = "stage1"
    trainable: tuple[str, ...] = ("projector",)
    """Parts that train, of `vision`, `projector`, `language`; all others are frozen."""
    mixture: str = "pretrain"
    """Key in `data.mixtures`."""
    max_steps: int = 1000
    learning_rate: float = 2e-4
    warmup_steps: int = 0
    """Linear warm-up in optimizer steps; used when `warmup_ratio` is null."""
    warmup_ratio: float | None = None
    """Share of `max_steps` that warms up; wins over `warmup_steps`."""
    weight_decay: float = 0.01
    drop_path_rate: float = 0.0
    """Stochastic depth of the vision encoder, linear over its layers from 0 to this rate."""
    frozen_eval: bool = True
    """Run frozen parts in eval mode (`requires_grad_(False)` alone leaves drop path running)."""
    gradient_checkpointing: tuple[str, ...] = ()
    """Parts (`vision`, `language`) that recompute activations in the backward pass."""
    packs_per_step: int | None = None
    """Overrides `packing.packs_per_step` for this stage (stage 1.5 doubles it)."""
    checkpoint_every: int = 100
    """Optimizer steps between resumable checkpoints."""

    def __post_init__(self) -> None:
        """Refuse unknown parts, empty stages and impossible rates.

        A learning rate of 0 passes here, because a measurement may want steps that change nothing; a run that is
        composed may not have one (`RunConfig.check_fit`).
        """
        unknown = (set(self.trainable) | set(self.gradient_checkpointing)) - set(PARTS)
        if unknown:
            raise ConfigError(f"stage {self.name}: unknown part {sorted(unknown)[0]!r}; parts are {', '.join(PARTS)}")
        if not self.trainable:
            raise ConfigError(f"stage {self.name}: stage.trainable is empty, nothing would train")
        prefix = f"stage {self.name}: stage"
        at_least(self, prefix, 1, "max_steps", "packs_per_step", "checkpoint_every")
        at_least(self, prefix, 0, "learning_rate", "warmup_steps", "weight_decay")
        share(self, prefix, "warmup_ratio")
        share(self, prefix, "drop_path_rate", below_one=True)

    @property
    def num_warmup_steps(self) -> int:
        """Count the warm-up steps: `warmup_ratio` of `max_steps` where it is set, else `warmup_steps`."""
        return self.warmup_steps if self.warmup_ratio is None else int(self.warmup_ratio * self.max_steps)


@dataclass(frozen=True)
class RecipeConfig:
    """Order stages; each starts from the weights the one before left."""

    name: str = "internvl2_5"
    stages: dict[str, StageConfig] = field(default_factory=dict)
    """Stage name to stage, in the order in which they run."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Configure AdamW. Source: spec section 3 (betas and eps from the authors' DeepSpeed files)."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    max_grad_norm: float = 1.0
    """Clip the global gradient norm to this; 0 = off. 1.0 is assumed, the report does not say."""
    max_bad_steps: int = 5
    """Steps in a row with a non-finite loss or gradient after which the run stops."""

    def __post_init__(self) -> None:
        """Refuse values AdamW cannot work with."""
        share(self, "optimizer", "beta1", "beta2", below_one=True)
        above_zero(self, "optimizer", "eps")
        at_least(self, "optimizer", 0, "max_grad_norm", "max_bad_steps")


@dataclass(frozen=True)
class SchedulerConfig:
    """Shape the learning rate after warm-up."""

    name: str = "cosine"
    """`cosine` (the report), `linear` or `constant`."""
    min_ratio: float = 0.0
    """Learning rate at the last step over the peak."""

    def __post_init__(self) -> None:
        """Refuse unknown shapes and ratios outside [0, 1]."""
        share(self, "scheduler", "min_ratio")
        if self.name not in ("cosine", "linear", "constant"):
            raise ConfigError(f"scheduler.name={self.name!r} must be cosine, linear or constant")
