"""Requeueing: only under SLURM, only after SIGUSR1, under the job's right name; Lightning's own stays off."""

from __future__ import annotations

import signal
import stat
from pathlib import Path

import pytest

from internvl_lab.training.slurm import job_to_requeue, requeue_job, slurm_plugins


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_NTASKS", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a program `scontrol` in the path; return the file of its calls."""
    calls = tmp_path / "calls"
    program = tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\ntest "$2" != 13 || {{ echo no such job >&2; exit 1; }}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return calls


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "7"}, "7"),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "bash"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "interactive"}, None),
        ({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": "2"}, "8_2"),
    ],
)
def test_the_job_is_named_as_scontrol_knows_it(
    environment: dict[str, str], job: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert job_to_requeue() == job


def test_sigusr1_requeues_and_sigterm_does_not(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not requeue_job(signal.SIGUSR1), "not under SLURM"
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert not requeue_job(signal.SIGTERM), "scancel"
    assert not scontrol.exists()
    assert requeue_job(signal.SIGUSR1)
    assert scontrol.read_text() == "requeue 12\n"


def test_a_refused_requeue_is_one_warning(
    scontrol: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    assert not requeue_job(signal.SIGUSR1)
    assert "could not requeue SLURM job 13: no such job; submit it again" in caplog.text
    monkeypatch.setenv("PATH", "")
    assert not requeue_job(signal.SIGUSR1)


def test_lightning_s_requeueing_is_off_under_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slurm_plugins() == []
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train"}.items():
        monkeypatch.setenv(name, value)
    assert [plugin.auto_requeue for plugin in slurm_plugins()] == [False]
