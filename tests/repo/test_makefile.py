"""Every target of the Makefile, by dry run, and the setup rule on a machine without a usable Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKE = shutil.which("make")
pytestmark = pytest.mark.skipif(MAKE is None, reason="needs make")

# target -> what its recipe runs
COMMANDS = {
    "setup": "is ready",
    "train": "/bin/python train.py",
    "test": "--cov-fail-under=90",
    "test-slow": "-m slow",
    "pytest": "-m pytest -n 2",
    "lint": "/bin/lint-imports",
    "format": "/bin/ruff format .",
    "notebooks": "/bin/jupyter execute",
    "bench": "/bin/python -m internvl_lab bench step",
    "bench-gpu": "bench step --device cuda",
    "lock": "uv pip compile pyproject.toml",
    "clean": "rm -rf",
    "distclean": "rm -rf .venv",
    "help": "make",
}
NEED_NO_ENVIRONMENT = {"lock", "clean", "distclean", "help"}


def make(*arguments: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run make as a newcomer would: not as a child of the make that runs this test, and in no conda environment."""
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VENV", "PYTHON", "ARGS", "JOBS", "CONDA_DEFAULT_ENV", "CONDA_PREFIX")
    environment = {name: value for name, value in os.environ.items() if name not in outer} | variables
    assert MAKE is not None
    return subprocess.run(
        [MAKE, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def phony_targets() -> set[str]:
    match = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert match
    return set(match[1].split())


def test_every_target_is_listed_here_and_in_the_help() -> None:
    assert phony_targets() == set(COMMANDS)
    shown = make("help").stdout
    assert [target for target in COMMANDS if not re.search(rf"^  make {target} +\S", shown, re.MULTILINE)] == []


@pytest.mark.parametrize("target", sorted(COMMANDS))
def test_dry_run(target: str, tmp_path: Path) -> None:
    """A machine without the environment: each target sets it up first, torch before everything else."""
    result = make("-n", target, f"VENV={tmp_path / 'venv'}")
    assert result.returncode == 0, result.stderr
    recipe = result.stdout.replace("\\\n", " ")
    assert COMMANDS[target] in recipe
    if target in NEED_NO_ENVIRONMENT:
        assert "requirements.lock" not in recipe or target == "lock"
    else:
        steps = [
            "-m venv",
            '"torch==',
            "--require-hashes --no-deps -r requirements.lock",
            "--no-deps --no-build-isolation -e .",
        ]
        places = [recipe.index(step) for step in [*steps, COMMANDS[target]]]
        assert places == sorted(places)


def test_a_finished_environment_is_left_alone(tmp_path: Path) -> None:
    stamp = tmp_path / "venv" / ".ready"
    stamp.parent.mkdir()
    stamp.touch()
    recipe = make("-n", "train", f"VENV={stamp.parent}", "ARGS=seed=3").stdout
    assert "pip" not in recipe
    assert "train.py seed=3" in recipe


def test_a_changed_lock_updates_the_environment(tmp_path: Path) -> None:
    stamp = tmp_path / "venv" / ".ready"
    stamp.parent.mkdir()
    stamp.touch()
    os.utime(stamp, (0, 0))
    assert "--require-hashes" in make("-n", "train", f"VENV={stamp.parent}").stdout


def test_conda_environment_takes_the_place_of_the_venv() -> None:
    recipe = make("-n", "train", CONDA_DEFAULT_ENV="internvl-lab", CONDA_PREFIX="/opt/conda/envs/internvl-lab").stdout
    assert "/opt/conda/envs/internvl-lab/bin/python train.py" in recipe
    assert (
        ".venv/bin/python train.py" in make("-n", "train", CONDA_DEFAULT_ENV="base", CONDA_PREFIX="/opt/conda").stdout
    )


def test_no_usable_python_is_said_in_one_sentence(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    result = make("setup", f"VENV={tmp_path / 'venv'}", f"PYTHON={old}")
    assert result.returncode != 0
    said = [line for line in result.stderr.splitlines() if not line.startswith("make")]
    assert len(said) == 1
    assert "Python 3.11 or newer" in said[0]
    assert str(old) in said[0]
    assert not (tmp_path / "venv").exists()


def test_ci_runs_both_suites() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = [line for line in script.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert lines[0] == "set -euo pipefail"
    assert lines[-2:] == ["make test", "make test-slow"]
