"""The root of the configuration: everything one run needs, typed and frozen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from internvl_lab.config.checks import above_zero, at_least, check_logger, check_trainer
from internvl_lab.config.cost import CostConfig
from internvl_lab.config.data import DataConfig, PackingConfig, TilingConfig, check_mixture
from internvl_lab.config.model import InitConfig, ModelConfig
from internvl_lab.config.probe import ProbeConfig
from internvl_lab.config.stage import OptimizerConfig, RecipeConfig, SchedulerConfig, StageConfig
from internvl_lab.config.test_time import TestTimeConfig
from internvl_lab.errors import ConfigError

MAX_SEED = 2**32 - 1
"""Largest seed that numpy, and so Lightning, takes."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Say what is scored when training has ended."""

    enabled: bool = True
    tasks: tuple[str, ...] = ()
    """Tasks to score; empty = all that the data offers."""
    samples_per_task: int | None = None
    """Score at most this many samples a task; null = all."""
    blind: bool = True
    """Score a second time with the images blanked, to show what the text alone gives away."""
    batch_size: int = 64
    max_new_tokens: int = 48
    temperature: float = 0.0
    """0 = greedy; above, answers are drawn, each from a seed of its own question."""
    jpeg_quality: int | None = None
    """Score a further time on pictures recompressed at this JPEG quality (1 to 100); null = not."""

    def __post_init__(self) -> None:
        """Refuse empty batches and answers."""
        at_least(self, "evaluation", 1, "batch_size", "max_new_tokens", "samples_per_task")
        at_least(self, "evaluation", 0, "temperature")
        if self.jpeg_quality is not None and not 1 <= self.jpeg_quality <= 100:
            raise ConfigError(f"evaluation.jpeg_quality={self.jpeg_quality} must lie in 1..100")


@dataclass(frozen=True)
class ValidationConfig:
    """Say which held-out tasks are asked while a stage trains; how answers are decoded stands in `evaluation`."""

    every_steps: int | None = None
    """Optimizer steps between two rounds; null = off."""
    tasks: tuple[str, ...] = ()
    """Tasks to ask; empty = all that `data.mixtures.val` holds."""
    samples_per_task: int = 20
    """Questions of each task: the first in shard order, the same in every round."""
    max_pictures: int = 8
    """Answers of a round that are kept with their pictures."""

    def __post_init__(self) -> None:
        """Refuse empty rounds."""
        at_least(self, "callbacks.validation", 1, "every_steps", "samples_per_task")
        at_least(self, "callbacks.validation", 0, "max_pictures")


@dataclass(frozen=True)
class CallbacksConfig:
    """Say what watches a run, and what becomes of it when it hangs or must leave a cluster."""

    model_summary: bool = True
    progress_bar: bool = True
    requeue: bool = True
    """Put the job back into the queue after SIGUSR1; acts under SLURM only."""
    hang_timeout_s: float | None = 1800.0
    """Seconds that one pack may take, fetching included, before stacks and sample keys are reported; null = off."""
    abort_on_hang: bool = False
    """End the process after that report instead of carrying on."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """Held-out tasks asked while training."""

    def __post_init__(self) -> None:
        """Refuse a timeout of 0."""
        above_zero(self, "callbacks", "hang_timeout_s")


@dataclass(frozen=True)
class SweepConfig:
    """Expand one experiment into the rows of a study."""

    name: str = ""
    axes: dict[str, Any] = field(default_factory=dict)
    """Override key to the list of its values, or a name to cases that set several keys at once
    (`{label: {key: value}}`); rows are their product, in order."""
    choices: dict[str, Any] = field(default_factory=dict)
    """What an axis may pick by the scale's name: `${sweep.choices.${scale.name}}`."""
    budget_shares: tuple[float, ...] = ()
    """Further axis: shares of its steps, and so of its tokens, that each stage trains for."""
    budget_flops: tuple[float, ...] = ()
    """Further axis: training FLOPs that a row spends; its stages keep their proportions."""
    baseline: str | None = None
    """Label of the row the others are compared with; null = the first."""
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Part to the overrides of the run that makes its weights, for every choice of `model/<part>` among the rows."""

    def __post_init__(self) -> None:
        """Refuse parts that no axis chooses, budgets that train nothing, and two kinds of them."""
        axes = {axis: tuple(values) if isinstance(values, list) else values for axis, values in self.axes.items()}
        object.__setattr__(self, "axes", axes)
        for part in self.parts:
            if f"model/{part}" not in self.keys:
                raise ConfigError(f"sweep.parts.{part} needs an axis model/{part}, which chooses the part")
        for name in ("budget_shares", "budget_flops"):
            if any(not 0 < value < math.inf for value in getattr(self, name)):
                raise ConfigError(f"sweep.{name}={list(getattr(self, name))} must be above 0")
        if self.budget_shares and self.budget_flops:
            raise ConfigError("sweep.budget_shares and sweep.budget_flops both set the steps of a row: use one")

    @property
    def keys(self) -> frozenset[str]:
        """Return the override keys that the axes set."""
        cases = [case for values in self.axes.values() if isinstance(values, Mapping) for case in values.values()]
        alone = [axis for axis, values in self.axes.items() if not isinstance(values, Mapping)]
        return frozenset(key.lstrip("+~") for key in [*alone, *(key for case in cases for key in case or ())])


@dataclass(frozen=True)
class PathsConfig:
    """Name the folders a run reads and writes."""

    output_dir: str = "outputs"
    data_dir: str = "data"


@dataclass(frozen=True)
class ScaleConfig:
    """Name the scale and hold the values that differ between a laptop and a cluster."""

    name: str = "full"
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunConfig:
    """Hold one run's whole configuration; `config.compose.compose` makes it."""

    experiment: str = "quickstart"
    seed: int = 42
    model: ModelConfig = field(default_factory=ModelConfig)
    init_from: InitConfig = field(default_factory=InitConfig)
    data: DataConfig = field(default_factory=DataConfig)
    tiling: TilingConfig = field(default_factory=TilingConfig)
    packing: PackingConfig = field(default_factory=PackingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    stage: StageConfig | None = None
    """When set, only this stage runs instead of the recipe."""
    probe: ProbeConfig | None = None
    """When set, encoders are probed and no stage runs."""
    test_time: TestTimeConfig | None = None
    """When set, checkpoints answer many times and no stage runs; `out` becomes the run folder."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    """With axes, `train.py` hands over to the study: one run a row."""
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    cost: CostConfig = field(default_factory=CostConfig)
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig)
    logger: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    paths: PathsConfig = field(default_factory=PathsConfig)
    max_steps_per_stage: int | None = None
    """Shorten every stage to this many steps; warm-up and schedule shrink with it."""
    ckpt_path: str | None = None
    """Resume this checkpoint of the same run, instead of the newest in the run folder."""
    fresh: bool = False
    """Start anew although the run folder holds a run."""
    plan: bool = False
    """Print and save what would run, its sizes, weights and cost, and exit 0."""

    def __post_init__(self) -> None:
        """Refuse impossible seeds and what the open groups (trainer, logger) cannot hold."""
        if not 0 <= self.seed <= MAX_SEED:
            raise ConfigError(f"seed={self.seed} must lie in 0..{MAX_SEED}")
        at_least(self, "", 1, "max_steps_per_stage")
        check_trainer(self.trainer)
        check_logger(self.logger)

    def check_fit(self) -> None:
        """Refuse parts that do not fit together in a run.

        Apart from `__post_init__`, because a test of one room builds only the parts that room reads.

        Raises:
            ConfigError: a sweep over what does not train, tiles are not of the encoder's size, a stage's learning
                rate is 0, or its mixture is none.
        """
        if self.sweep.axes and (self.probe is not None or self.test_time is not None):
            raise ConfigError(f"sweep {self.sweep.name}: a study trains, and experiment {self.experiment} does not")
        if self.tiling.tile_size != self.model.vision.image_size:
            raise ConfigError(
                f"tiling.tile_size={self.tiling.tile_size} must equal "
                f"model.vision.image_size={self.model.vision.image_size}"
            )
        for name, stage in self.stages.items():
            if stage.learning_rate == 0:
                raise ConfigError(f"stage {name}: stage.learning_rate=0 must be above 0")
            check_mixture(name, stage.mixture, self.data.mixtures)

    def packs_per_step(self, stage: StageConfig) -> int:
        """Return the packs of one optimizer step of `stage`, over all ranks: its own value, else the packing's."""
        return self.packing.packs_per_step if stage.packs_per_step is None else stage.packs_per_step

    @property
    def stages(self) -> dict[str, StageConfig]:
        """Return the stages to run, in order."""
        stages = {self.stage.name: self.stage} if self.stage is not None else dict(self.recipe.stages)
        if self.max_steps_per_stage is None:
            return stages
        return {name: _shortened(stage, self.max_steps_per_stage) for name, stage in stages.items()}


def _shortened(stage: StageConfig, limit: int) -> StageConfig:
    """Stop a stage after `limit` steps, its schedule included."""
    return stage if stage.max_steps <= limit else replace(stage, max_steps=limit, schedule_steps=None)
