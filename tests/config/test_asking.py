"""Which judge is asked; the rules that curation adds are tested in `test_curation_judge`."""

from __future__ import annotations

from typing import Any

import pytest

from internvl_lab.config.asking import AskingConfig
from internvl_lab.errors import ConfigError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "local"}, r"judge\.kind='local' must be one of none, openai"),
        ({"model": ""}, r"judge\.model is missing"),
        ({"url": "ftp://x"}, r"judge\.url='ftp://x' must be an http or https URL"),
        ({"concurrency": 0}, r"judge\.concurrency=0"),
        ({"timeout_s": 0.0}, r"judge\.timeout_s=0\.0 must be above 0"),
        ({"max_cost": 5.0}, r"judge\.max_cost bounds nothing"),
    ],
)
def test_impossible_judges_are_refused_by_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AskingConfig(**{"kind": "openai", "model": "m"} | changes)


def test_nobody_is_asked_by_default() -> None:
    assert AskingConfig().kind == "none"
