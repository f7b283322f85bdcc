"""Fixtures of the judging tests: a stand-in judge's server, settings that do not wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from internvl_lab.config.asking import AskingConfig


@pytest.fixture
def server(judge_server: ModuleType) -> Iterator[Any]:
    """Give a running server."""
    with judge_server.running() as running:
        yield running


@pytest.fixture
def make_config(server: Any) -> Callable[..., AskingConfig]:
    """Give settings for the running server that retry at once."""

    def make(**changes: Any) -> AskingConfig:
        settings: dict[str, Any] = {"model": "stand-in", "url": server.url, "first_delay_s": 0.0, "timeout_s": 5.0}
        return AskingConfig("openai", **settings | changes)

    return make
