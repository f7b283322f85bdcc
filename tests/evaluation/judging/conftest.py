"""A stand-in judge's server, the one of `tests/text/judging`."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def server(judge_server: ModuleType) -> Iterator[Any]:
    """Give a running server."""
    with judge_server.running() as running:
        yield running
