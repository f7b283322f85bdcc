"""Fixtures of the judging tests: a stand-in judge's server, records, settings that do not wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from internvl_lab.config.curation_judge import JudgeConfig
from internvl_lab.curation.verdicts import CurationRecord


@pytest.fixture
def server(judge_server: ModuleType) -> Iterator[Any]:
    """Give a running server."""
    with judge_server.running() as running:
        yield running


@pytest.fixture
def make_config(server: Any) -> Callable[..., JudgeConfig]:
    """Give settings for the running server that retry at once."""

    def make(**changes: Any) -> JudgeConfig:
        settings: dict[str, Any] = {"model": "stand-in", "url": server.url, "first_delay_s": 0.0, "timeout_s": 5.0}
        return JudgeConfig("openai", **settings | changes)

    return make


def make_record(number: int, text: str, source: str = "web", has_media: bool = False) -> CurationRecord:
    turns = (("human", f"Question {number}?"), ("gpt", text))
    raw = {"id": number, "conversations": [{"from": role, "value": words} for role, words in turns]}
    return CurationRecord(f"{source}:{number}", source, raw, turns, ("a.jpg",) if has_media else (), has_media)


@pytest.fixture
def record() -> Callable[..., CurationRecord]:
    """Give a maker of records."""
    return make_record
