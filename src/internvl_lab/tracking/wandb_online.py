"""Read runs from the W&B service: the only reader that uses the network, and only when a person names a project."""

from __future__ import annotations

from typing import Any

from internvl_lab.errors import ConfigError, InternVLLabError
from internvl_lab.tracking.recorded import RecordedRun
from internvl_lab.tracking.wandb_offline import join_history, numbers


def read_online_runs(path: str, api: Any = None) -> list[RecordedRun]:
    """Read the runs of a W&B project with their whole history.

    Args:
        path: `entity/project`, or `entity/project/run_id` for one run.
        api: a `wandb.Api`; None = a new one, at the address and with the key that wandb itself finds
            (`wandb login`, WANDB_API_KEY, WANDB_BASE_URL).
    Returns:
        Oldest first.
    Raises:
        ConfigError: `path` has another form.
        InternVLLabError: no key, no such project or run, or the service does not answer.
    """
    words = path.strip("/").split("/")
    if len(words) not in (2, 3) or not all(words):
        raise ConfigError(f"wandb:{path} must be wandb:ENTITY/PROJECT or wandb:ENTITY/PROJECT/RUN_ID")
    try:
        api = _open() if api is None else api
        runs = [api.run("/".join(words))] if len(words) == 3 else list(api.runs("/".join(words), lazy=False))
        return [_record(run) for run in runs]
    except Exception as error:  # wandb raises its own errors, ValueError, and those of the transport
        line = " ".join(str(error).split())
        raise InternVLLabError(f"W&B cannot read {path}: {line or type(error).__name__}") from error


def _open() -> Any:
    """Connect to the service."""
    import wandb

    return wandb.Api()


def _record(run: Any) -> RecordedRun:
    """Read one `wandb.apis.public.Run`."""
    return RecordedRun(
        name=run.name or run.id,
        source=run.url,
        history=join_history([dict(row) for row in run.scan_history(use_cache=False)]),
        config={key: value for key, value in run.config.items() if not key.startswith("_")},
        summary=numbers(run.summary_metrics),
        group=run.group or "",
        job_type=run.job_type or "",
        tags=tuple(run.tags or ()),
    )
