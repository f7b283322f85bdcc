"""Typed, frozen configuration. No torch, and Hydra only in `compose` (not re-exported)."""

from internvl_lab.config.cost import CostConfig
from internvl_lab.config.curation import CurateConfig, CurationConfig, RuleConfig, RulesConfig
from internvl_lab.config.data import (
    DataConfig,
    JpegConfig,
    MiniworldConfig,
    PackingConfig,
    SourceConfig,
    TilingConfig,
)
from internvl_lab.config.model import InitConfig, LanguageConfig, ModelConfig, ProjectorConfig, VisionConfig
from internvl_lab.config.probe import (
    ClassificationConfig,
    ProbeConfig,
    ProbeDataConfig,
    ProbeSetConfig,
    ProbeWorldConfig,
    SegmentationConfig,
)
from internvl_lab.config.run import (
    CallbacksConfig,
    EvaluationConfig,
    PathsConfig,
    RunConfig,
    ScaleConfig,
    SweepConfig,
    ValidationConfig,
)
from internvl_lab.config.stage import LoraConfig, OptimizerConfig, RecipeConfig, SchedulerConfig, StageConfig
from internvl_lab.config.test_time import SamplingConfig, TestTimeConfig

__all__ = [
    "CallbacksConfig",
    "ClassificationConfig",
    "CostConfig",
    "CurateConfig",
    "CurationConfig",
    "DataConfig",
    "EvaluationConfig",
    "InitConfig",
    "JpegConfig",
    "LanguageConfig",
    "LoraConfig",
    "MiniworldConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PackingConfig",
    "PathsConfig",
    "ProbeConfig",
    "ProbeDataConfig",
    "ProbeSetConfig",
    "ProbeWorldConfig",
    "ProjectorConfig",
    "RecipeConfig",
    "RuleConfig",
    "RulesConfig",
    "RunConfig",
    "SamplingConfig",
    "ScaleConfig",
    "SchedulerConfig",
    "SegmentationConfig",
    "SourceConfig",
    "StageConfig",
    "SweepConfig",
    "TestTimeConfig",
    "TilingConfig",
    "ValidationConfig",
    "VisionConfig",
]
