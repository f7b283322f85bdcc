"""Who a run is: its configuration's hash, its code's revision, its packages' versions."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from internvl_lab.atomic import write_atomic

PACKAGES = (
    "internvl-lab",
    "torch",
    "transformers",
    "lightning",
    "hydra-core",
    "webdataset",
    "wandb",
    "numpy",
    "pillow",
    "tokenizers",
    "safetensors",
)
"""Distributions whose version can change a result."""

IGNORED = (
    "paths",
    "logger",
    "ckpt_path",
    "fresh",
    "plan",
    "cost",
    "data.allow_changed_data",
    "data.cache_dir",
    "data.cache_gb",
    "data.journal",
    "data.num_workers",
    "data.prefetch_factor",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "sweep",
    "callbacks.model_summary",
    "callbacks.progress_bar",
    "callbacks.requeue",
    "callbacks.hang_timeout_s",
    "callbacks.abort_on_hang",
    "callbacks.validation",
)
"""Settings that change where, how fast or how visibly a run works, but not what comes out.

Ranks are among them: packs are shared out by step, so a run may continue on another number of devices.
"""


def git_revision(folder: Path | None = None) -> str | None:
    """Return the commit of the repository around `folder`, with `-dirty` when tracked files changed.

    Args:
        folder: default = this package.

    Returns:
        None outside git, without commits or without git installed; never raises for these.
    """
    where = str(folder or Path(__file__).parent)
    commit = _git(where, "rev-parse", "--verify", "HEAD")
    if not commit:
        return None
    return commit + ("-dirty" if _git(where, "status", "--porcelain", "--untracked-files=no") else "")


def _git(folder: str, *arguments: str) -> str | None:
    command = ["git", "-C", folder, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages in `PACKAGES`."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def config_hash(resolved: Mapping[str, Any]) -> str:
    """Hash what determines a run's result.

    Args:
        resolved: the resolved configuration as plain containers.

    Returns:
        10 hexadecimal digits; equal for configurations that differ only in `IGNORED` keys, in key order,
        or in tuple against list.
    """
    text = json.dumps(_without(resolved, ""), sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


def _without(node: Any, prefix: str) -> Any:
    if not isinstance(node, Mapping):
        return node
    kept = {key: value for key, value in node.items() if f"{prefix}{key}" not in IGNORED}
    return {str(key): _without(value, f"{prefix}{key}.") for key, value in kept.items()}


def write_identity(run_dir: Path, resolved: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Write `config.yaml`, `overrides.yaml` and `identity.json` into the run folder.

    `identity.json` holds the hash and one entry per start of the run (time, revision, versions, overrides),
    because a resumed run may have run under two revisions.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    plain = json.loads(json.dumps(resolved, default=str))
    write_atomic(run_dir / "config.yaml", yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    write_atomic(run_dir / "overrides.yaml", yaml.safe_dump(list(overrides), allow_unicode=True))
    path = run_dir / "identity.json"
    starts: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["starts"] if path.is_file() else []
    start = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "revision": git_revision(),
        "versions": package_versions(),
        "overrides": list(overrides),
    }
    identity = {"hash": config_hash(resolved), "starts": [*starts, start]}
    write_atomic(path, json.dumps(identity, indent=2) + "\n")
