"""Read runs from the W&B service: the only reader that uses the network, and only when a person names a project."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from internvl_lab.errors import ConfigError, InternVLLabError
from internvl_lab.tracking.recorded import RecordedRun
from internvl_lab.tracking.wandb_offline import join_history, numbers


def read_online_runs(path: str, job_types: Collection[str] | None = None) -> list[RecordedRun]:
    """Read the runs of a W&B project with their whole history.

    The address and the key are those that wandb itself finds (`wandb login`, WANDB_API_KEY, WANDB_BASE_URL).

    Args:
        path: `entity/project`, or `entity/project/run_id` for one run.
        job_types: of the runs to read; None = all.
    Returns:
        Oldest first.
    Raises:
        ConfigError: `path` has another form.
        InternVLLabError: no key, no such project or run, or the service does not answer.
    """
    words = path.strip("/").split("/")
    if len(words) not in (2, 3) or not all(words):
        raise ConfigError(f"wandb:{path} must be wandb:ENTITY/PROJECT or wandb:ENTITY/PROJECT/RUN_ID")
    import wandb

    try:
        api = wandb.Api()
        runs = [api.run("/".join(words))] if len(words) == 3 else list(api.runs("/".join(words), lazy=False))
        return [_record(run) for run in runs if job_types is None or (run.job_type or "") in job_types]
    except Exception as error:  # wandb raises its own errors, ValueError, and those of the transport
        line = " ".join(str(error).split())
        raise InternVLLabError(f"W&B cannot read {path}: {line or type(error).__name__}") from error


def _record(run: Any) -> RecordedRun:
    """Read one `wandb.apis.public.Run`."""
    rows = run.scan_history(use_cache=False) if run.history_line_count else ()  # wandb refuses to scan nothing
    return RecordedRun(
        name=run.name or run.id,
        source=run.url,
        history=join_history([dict(row) for row in rows]),
        config={key: value for key, value in run.config.items() if not key.startswith("_")},
        summary=numbers(run.summary_metrics),
        group=run.group or "",
        job_type=run.job_type or "",
        tags=tuple(run.tags or ()),
    )
