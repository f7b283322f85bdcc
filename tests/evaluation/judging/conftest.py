"""A stand-in judge's server, the one of `tests/text/judging`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SERVER = Path(__file__).resolve().parents[2] / "text" / "judging" / "judge_server.py"


@pytest.fixture
def server() -> Iterator[Any]:
    """Give a running server."""
    spec = importlib.util.spec_from_file_location("judge_server", SERVER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.running() as running:
        yield running
