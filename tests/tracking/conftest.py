"""Fixtures of the tracking tests: a stand-in for the W&B service."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SERVER = Path(__file__).with_name("wandb_server.py")


@pytest.fixture(scope="session")
def wandb_server() -> ModuleType:
    """Give the module `wandb_server`."""
    spec = importlib.util.spec_from_file_location("wandb_server", SERVER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["wandb_server"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def service(wandb_server: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give a running service, to which wandb is pointed with a key."""
    with wandb_server.running() as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        yield running
