"""Fixtures of the training tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).with_name("tiny_run.py")


@pytest.fixture(scope="session")
def tiny(import_file: Callable[[Path], ModuleType]) -> ModuleType:
    """Give the module `tiny_run`: a tiny model, its packs, a run of them."""
    return import_file(SCRIPT)


@pytest.fixture
def tiny_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the command that runs `tiny_run` in a process of its own."""
    source = Path(__file__).parents[2] / "src"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")]))
    return [sys.executable, str(SCRIPT)]
