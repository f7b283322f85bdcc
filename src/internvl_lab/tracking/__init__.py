"""Run identity, metrics.csv and W&B, and reading runs back. The only importer of wandb."""

from internvl_lab.tracking.csv_log import CsvLog
from internvl_lab.tracking.identity import config_hash, git_revision, package_versions, write_identity
from internvl_lab.tracking.read_back import last_values, read_metrics, read_offline_wandb
from internvl_lab.tracking.wandb_log import WandbLog, build_wandb

__all__ = [
    "CsvLog",
    "WandbLog",
    "build_wandb",
    "config_hash",
    "git_revision",
    "last_values",
    "package_versions",
    "read_metrics",
    "read_offline_wandb",
    "write_identity",
]
