"""What a harness hands over."""

from __future__ import annotations

from typing import Any

import pytest

from internvl_lab.config.harness import HarnessConfig, harness_config
from internvl_lab.errors import ConfigError


def test_names_and_numbers_of_harnesses_are_understood() -> None:
    given: dict[str, Any] = {"pretrained": "x", "batch_size": "8", "device": None, "max_tiles": 4}
    assert harness_config(given) == HarnessConfig("x", max_tiles=4, batch_size=8)
    assert harness_config({"model_path": "y", "dtype": "float32"}) == HarnessConfig("y", dtype="float32")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "checkpoint= is missing"),
        ({"checkpoint": "x", "batch_size": "auto"}, "batch_size='auto' must be int"),
        ({"checkpoint": "x", "max_tiles": 0}, "max_tiles=0 must be at least 1"),
        ({"checkpoint": "x", "dtype": "float16"}, "dtype=float16 must be one of"),
        ({"checkpoint": "x", "seed": -1}, "seed=-1"),
        ({"checkpoint": "x", "colour": 1}, "unknown key 'colour'"),
    ],
)
def test_wrong_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        harness_config(values)
