"""A stage is data: what trains, at which rate, for how long."""

from __future__ import annotations

from dataclasses import dataclass, field

from internvl_lab.config.checks import above_zero, at_least, share
from internvl_lab.constants import PARTS
from internvl_lab.errors import ConfigError

ADAPTED_PARTS = ("vision", "language")
"""Parts that LoRA can adapt; the projector is small enough to train in full."""


@dataclass(frozen=True)
class LoraConfig:
    """Train low-rank adapters inside frozen parts. Source of the defaults: spec section 3, second fine-tuning."""

    parts: tuple[str, ...] = ()
    """Parts (`vision`, `language`) whose linear layers get adapters; empty = no LoRA."""
    rank: int = 16
    alpha: float | None = None
    """Adapters count alpha / rank; null = twice the rank, as the authors set it."""
    dropout: float = 0.05
    """Share of an adapter's inputs that is dropped in training."""

    def __post_init__(self) -> None:
        """Refuse parts without linear layers to adapt, empty adapters and impossible rates."""
        if unknown := sorted(set(self.parts) - set(ADAPTED_PARTS)):
            raise ConfigError(f"stage.lora.parts: {unknown[0]!r} must be one of {', '.join(ADAPTED_PARTS)}")
        at_least(self, "stage.lora", 1, "rank")
        above_zero(self, "stage.lora", "alpha")
        share(self, "stage.lora", "dropout", below_one=True)

    @property
    def scaling(self) -> float:
        """Return what an adapter's output is multiplied with."""
        return 2.0 if self.alpha is None else self.alpha / self.rank


@dataclass(frozen=True)
class StageConfig:
    """Describe one training stage. Source of the published values: InternVL 2.5, table 3; spec section 3."""

    name: str = "stage1"
    trainable: tuple[str, ...] = ("projector",)
    """Parts that train, of `vision`, `projector`, `language`; all others are frozen."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Adapters inside frozen parts."""
    mixture: str = "pretrain"
    """Key in `data.mixtures`."""
    max_steps: int = 1000
    schedule_steps: int | None = None
    """Step at which the schedule of the rate ends: above `max_steps` for a run that stops early; null = `max_steps`."""
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
        if not self.trainable and not self.lora.parts:
            raise ConfigError(f"stage {self.name}: stage.trainable is empty, nothing would train")
        if both := sorted(set(self.trainable) & set(self.lora.parts)):
            raise ConfigError(
                f"stage {self.name}: {both[0]} is in stage.trainable and in stage.lora.parts; "
                "adapters need a frozen part"
            )
        prefix = f"stage {self.name}: stage"
        at_least(self, prefix, 1, "max_steps", "schedule_steps", "packs_per_step", "checkpoint_every")
        at_least(self, prefix, 0, "learning_rate", "warmup_steps", "weight_decay")
        share(self, prefix, "warmup_ratio")
        share(self, prefix, "drop_path_rate", below_one=True)

    @property
    def learns(self) -> str:
        """Say in words what trains."""
        return ", ".join([*self.trainable, *(f"LoRA of {part}" for part in self.lora.parts)])

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
