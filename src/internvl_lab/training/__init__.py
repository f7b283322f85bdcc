"""Train one stage: the LightningModule, its exact loss, and one callback a concern."""

from internvl_lab.training.checkpointing import StepCheckpoint, find_resume, position_of
from internvl_lab.training.freezing import StageFreezing, describe_parts
from internvl_lab.training.journal import Journal
from internvl_lab.training.losses import StepResult, StepTotals
from internvl_lab.training.metrics import MetricsWriter, write_metrics
from internvl_lab.training.module import InternVLModule
from internvl_lab.training.pack_monitor import PackMonitor
from internvl_lab.training.progress import StageProgressBar
from internvl_lab.training.resume import silence_lightning
from internvl_lab.training.sharding import FSDP2, fsdp2_strategy
from internvl_lab.training.slurm import requeue_job, slurm_plugins
from internvl_lab.training.source_loss import SourceLossMonitor
from internvl_lab.training.stop import RunStopped, StopOnRequest, StopSignals
from internvl_lab.training.throughput import ThroughputMonitor
from internvl_lab.training.trainer import accumulation_of, add_monitors, build_callbacks, loop_settings
from internvl_lab.training.watchdog import Watchdog

__all__ = [
    "FSDP2",
    "InternVLModule",
    "Journal",
    "MetricsWriter",
    "PackMonitor",
    "RunStopped",
    "SourceLossMonitor",
    "StageFreezing",
    "StageProgressBar",
    "StepCheckpoint",
    "StepResult",
    "StepTotals",
    "StopOnRequest",
    "StopSignals",
    "ThroughputMonitor",
    "Watchdog",
    "accumulation_of",
    "add_monitors",
    "build_callbacks",
    "describe_parts",
    "find_resume",
    "fsdp2_strategy",
    "loop_settings",
    "position_of",
    "requeue_job",
    "silence_lightning",
    "slurm_plugins",
    "write_metrics",
]
