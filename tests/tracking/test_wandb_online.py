"""The W&B service, by the real client against a stand-in on this machine; the real service was never reached."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from internvl_lab.errors import ConfigError, InternVLLabError
from internvl_lab.tracking import build_wandb, read_offline_runs, read_online_runs
from internvl_lab.tracking.wandb_offline import read_records


@pytest.fixture
def logged(tmp_path: Path, service: Any) -> Path:
    """Log a run offline, and put it into the service as `wandb sync` would."""
    folder = tmp_path / "outputs" / "study" / "abc"
    log = build_wandb(folder, {"tags": ["mine"]}, {"seed": 3, "model": {"vision": {"name": "small"}}})
    assert log is not None
    for step in range(1, 4):
        log.log_metrics({"train/loss": 0.1 + 0.2 / step, "tokens": 2037.0 * step}, step)
    log.log_metrics({"train/loss": math.nan}, 4)
    log.log_summary({"val/score": 0.1 + 0.2})
    log.finish()
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    service.add(list(read_records(file)))
    return folder


def test_online_and_offline_are_the_same(logged: Path, service: Any, wandb_server: ModuleType) -> None:
    (offline,) = read_offline_runs(logged)
    path = f"{wandb_server.ENTITY}/{wandb_server.PROJECT}"
    (online,) = read_online_runs(path)
    for name in ("name", "config", "summary", "group", "job_type", "tags"):
        assert getattr(online, name) == getattr(offline, name)
    assert (online.group, online.job_type, online.tags) == ("study", "train", ("mine", "small"))
    assert online.history["train/loss"][:3] == offline.history["train/loss"][:3] == [0.1 + 0.2 / k for k in (1, 2, 3)]
    assert math.isnan(online.history["train/loss"][3])
    assert online.source.startswith(service.url)
    run_id = (logged / "wandb_id.txt").read_text().strip()
    assert [run.name for run in read_online_runs(f"{path}/{run_id}")] == ["abc"]
    assert read_online_runs(path, job_types=("probe",)) == []


def test_what_is_not_there_is_one_error(service: Any, wandb_server: ModuleType) -> None:
    with pytest.raises(InternVLLabError, match="W&B cannot read lab/none: Could not find project none"):
        read_online_runs("lab/none")
    with pytest.raises(InternVLLabError, match="W&B cannot read lab/internvl/zzz: Could not find run"):
        read_online_runs("lab/internvl/zzz")


@pytest.mark.parametrize("path", ["project", "", "a/b/c/d", "a//b"])
def test_another_form_is_refused_before_connecting(path: str) -> None:
    with pytest.raises(ConfigError, match="must be wandb:ENTITY/PROJECT"):
        read_online_runs(path)
