"""Loss weights against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from internvl_lab.constants import IGNORE_INDEX
from internvl_lab.data.weights import token_weights
from internvl_lab.errors import ConfigError

# Two responses, of 1 and 3 tokens, in one sample of 7 positions.
LABELS = np.array([IGNORE_INDEX, 7, IGNORE_INDEX, 5, 5, 6, IGNORE_INDEX], np.int32)
RESPONSES = np.array([-1, 0, -1, 1, 1, 1, -1], np.int32)


@pytest.mark.parametrize(
    ("averaging", "unit", "expected"),
    [
        ("token", "sample", [0, 1, 0, 1, 1, 1, 0]),
        ("token", "response", [0, 1, 0, 1, 1, 1, 0]),
        ("sample", "sample", [0, 1 / 4, 0, 1 / 4, 1 / 4, 1 / 4, 0]),
        ("sample", "response", [0, 1, 0, 1 / 3, 1 / 3, 1 / 3, 0]),
        ("square", "sample", [0, 1 / 2, 0, 1 / 2, 1 / 2, 1 / 2, 0]),
        ("square", "response", [0, 1, 0, 3**-0.5, 3**-0.5, 3**-0.5, 0]),
    ],
)
def test_weights_by_hand(averaging: str, unit: str, expected: list[float]) -> None:
    weights = token_weights(LABELS, RESPONSES, averaging, unit)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, np.float32(expected), rtol=0, atol=0)


@pytest.mark.parametrize("unit", ["sample", "response"])
@pytest.mark.parametrize("length", [0, 5])
def test_sample_without_targets_weighs_nothing(unit: str, length: int) -> None:
    nothing = np.full(length, IGNORE_INDEX, np.int32)
    weights = token_weights(nothing, np.full(length, -1, np.int32), "square", unit)
    assert weights.tolist() == [0.0] * length


def test_a_sample_sums_to_the_power_the_report_gives() -> None:
    labels = np.arange(1, 10_001, dtype=np.int32)
    sums = {mode: token_weights(labels, labels * 0, mode, "sample").sum() for mode in ("token", "sample", "square")}
    assert sums == pytest.approx({"token": 10_000, "sample": 1, "square": 100}, rel=1e-5)


@pytest.mark.parametrize(("averaging", "unit", "name"), [("mean", "sample", "averaging"), ("token", "turn", "unit")])
def test_unknown_modes_are_refused(averaging: str, unit: str, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        token_weights(LABELS, RESPONSES, averaging, unit)
