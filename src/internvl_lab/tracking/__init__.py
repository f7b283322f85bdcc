"""Run identity, metrics.csv and W&B, and reading runs back. The only importer of wandb."""

from internvl_lab.tracking.csv_log import CsvLog
from internvl_lab.tracking.identity import config_hash, git_revision, package_versions, write_identity
from internvl_lab.tracking.read_back import CUMULATIVE, Columns, last_values, read_metrics
from internvl_lab.tracking.recorded import RecordedRun, read_run_folder, report_summary
from internvl_lab.tracking.wandb_log import WandbLog, build_wandb
from internvl_lab.tracking.wandb_offline import read_offline_runs, read_offline_wandb
from internvl_lab.tracking.wandb_online import read_online_runs

__all__ = [
    "CUMULATIVE",
    "Columns",
    "CsvLog",
    "RecordedRun",
    "WandbLog",
    "build_wandb",
    "config_hash",
    "git_revision",
    "last_values",
    "package_versions",
    "read_metrics",
    "read_offline_runs",
    "read_offline_wandb",
    "read_online_runs",
    "read_run_folder",
    "report_summary",
    "write_identity",
]
