"""Weigh tokens so that long answers neither drown short ones nor are drowned by them.

A supervised token weighs w = 1 / x^p, where x is how many supervised tokens its length unit has: p = 0 averages over
tokens (long answers dominate), p = 1 over samples (short ones do), p = 1/2 is the report's compromise. The loss is
sum(w * CE) / sum(w). Source: InternVL 2.5, section 3.4, equation 5; spec section 5.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from internvl_lab.constants import IGNORE_INDEX
from internvl_lab.errors import ConfigError

EXPONENTS = {"token": 0.0, "sample": 1.0, "square": 0.5}
UNITS = ("sample", "response")


def token_weights(
    labels_shifted: NDArray[np.integer], response_ids_shifted: NDArray[np.integer], averaging: str, unit: str
) -> NDArray[np.float32]:
    """Return the loss weight of each position of one sample.

    Args:
        labels_shifted: (T,) target of each position, IGNORE_INDEX where there is none.
        response_ids_shifted: (T,) response that each target belongs to, -1 where there is none.
        averaging: `token`, `sample` or `square`.
        unit: x counts the supervised tokens of the whole `sample` (authors' code) or of the single `response` (report).

    Returns:
        (T,) float32, 0 where there is no target.

    Raises:
        ConfigError: unknown averaging or unit.
    """
    if averaging not in EXPONENTS:
        raise ConfigError(f"data.loss_averaging={averaging!r} must be one of {', '.join(EXPONENTS)}")
    if unit not in UNITS:
        raise ConfigError(f"data.weight_unit={unit!r} must be one of {', '.join(UNITS)}")
    weights = np.zeros(len(labels_shifted), np.float32)
    supervised = labels_shifted != IGNORE_INDEX
    if unit == "sample":
        lengths = np.count_nonzero(supervised)
    else:
        responses = response_ids_shifted[supervised]
        lengths = np.bincount(responses)[responses]
    if supervised.any():
        weights[supervised] = lengths ** -EXPONENTS[averaging]
    return weights
