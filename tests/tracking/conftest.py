"""Fixtures of the tracking tests: a stand-in for the W&B service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SERVER = Path(__file__).with_name("wandb_server.py")


@pytest.fixture(scope="session")
def wandb_server(import_file: Callable[[Path], ModuleType]) -> ModuleType:
    """Give the module `wandb_server`."""
    return import_file(SERVER)


@pytest.fixture
def service(wandb_server: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give a running service, to which wandb is pointed with a key."""
    with wandb_server.running() as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        yield running
