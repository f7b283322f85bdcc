"""One run as it was recorded, wherever it was: a run folder, an offline W&B folder, the W&B service.

::

    run folder   metrics.csv config.yaml metrics.json ─ read_run_folder ──┐
    offline W&B  run-*.wandb                          ─ read_offline_runs ├─> RecordedRun
    W&B service  entity/project                       ─ read_online_runs ─┘

All three give the same history, configuration and summary, so that tables made from them are equal to the digit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from internvl_lab.errors import InternVLLabError
from internvl_lab.tracking.read_back import Columns, read_metrics

TASK, SCORE, COUNT = "val/", "/score", "/n"
"""Keys of a task in the summary: `val/ocr/score`, `val/ocr/n`."""
_MEAN = "val/score"
_OVERALL = ("score", "blind", "n")


@dataclass(frozen=True)
class RecordedRun:
    """Hold what is known of one run."""

    name: str
    """As W&B shows it: the name of its folder, unless the configuration gives another."""
    source: str
    """Folder or address, for people."""
    history: Columns
    """Logged values, one row a step; empty where nothing was logged."""
    config: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, float] = field(default_factory=dict)
    """Final numbers by their W&B keys, as `report_summary` names them."""
    group: str = ""
    job_type: str = ""
    tags: tuple[str, ...] = ()

    @property
    def tasks(self) -> dict[str, dict[str, float]]:
        """Return the tasks of the summary, by name: {"score", "n"}; no `n` where an older run did not log it."""
        keys = sorted(key for key in self.summary if key.startswith(TASK) and key.endswith(SCORE) and key != _MEAN)
        found: dict[str, dict[str, float]] = {}
        for name in (key[len(TASK) : -len(SCORE)] for key in keys):
            found[name] = {"score": self.summary[f"{TASK}{name}{SCORE}"]}
            if (count := self.summary.get(f"{TASK}{name}{COUNT}")) is not None:
                found[name]["n"] = count
        return found


def report_summary(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Flatten a run's `metrics.json` into the keys that W&B shows in its table of runs.

    Args:
        metrics: `{"overall": {"score", "blind", "n"}, "tasks": {name: {"score", "n", ...}}, "looping", "train_s",
            "seed"}`; what is missing is left out.
    """
    overall = metrics.get("overall", {})
    flat = {f"{TASK}{name}": overall.get(name) for name in _OVERALL}
    flat[f"{TASK}looping"] = metrics.get("looping", {}).get("overall")
    for name, task in metrics.get("tasks", {}).items():
        flat |= {f"{TASK}{name}{SCORE}": task["score"], f"{TASK}{name}{COUNT}": task["n"]}
    flat |= {name: metrics.get(name) for name in ("train_s", "seed")}
    return {name: value for name, value in flat.items() if value is not None}


def read_run_folder(run_dir: Path) -> RecordedRun:
    """Read the plain files of a run folder.

    Raises:
        FileNotFoundError: it holds no `metrics.csv`.
        InternVLLabError: a file that cannot be parsed.
    """
    folder = Path(run_dir)
    history = read_metrics(folder)
    try:
        config = yaml.safe_load(_text(folder / "config.yaml")) or {}
        metrics = json.loads(_text(folder / "metrics.json") or "{}")
        summary = report_summary(metrics)
    except (ValueError, KeyError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise InternVLLabError(f"{folder}: config.yaml or metrics.json is damaged: {error}") from error
    labels = run_labels(folder, (config.get("logger") or {}).get("wandb") or {}, config)
    return RecordedRun(source=str(folder), history=history, config=config, summary=summary, **labels)


def run_labels(run_dir: Path, settings: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return how W&B names and groups a run: by its experiment, so that the rows of a study stand together.

    Args:
        run_dir: `outputs/<experiment>/<hash>`.
        settings: the group `logger.wandb`; what it sets wins.
        config: the resolved configuration.
    Returns:
        `name`, `group`, `job_type` (`train`, `probe`, or `report` for runs that only hold tables) and `tags`
        (the configured ones, then the names of encoder and language model).
    """
    model = config.get("model") or {}
    kind = "probe" if config.get("probe") else "train" if model else "report"
    parts = [model[part]["name"] for part in ("vision", "language") if part in model]
    return {
        "name": settings.get("name") or run_dir.resolve().name,
        "group": settings.get("group") or run_dir.resolve().parent.name,
        "job_type": settings.get("job_type") or kind,
        "tags": tuple(dict.fromkeys([*settings.get("tags", ()), *parts])),
    }


def _text(path: Path) -> str:
    """Return the content of a file; empty where there is none."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""
