"""Hand an experiment with a sweep over to the study: each row is one run in its own process group."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from internvl_lab.config import RunConfig
from internvl_lab.config.compose import CONFIG_DIR
from internvl_lab.errors import InternVLLabError
from internvl_lab.scaling import Row, compare, expand, run_study

TRAIN_SCRIPT = CONFIG_DIR.parent / "train.py"


def run_sweep(config: RunConfig, overrides: Sequence[str], study_hash: str) -> float | None:
    """Run every row that is not done yet, compare them, and return the best score.

    Raises:
        InternVLLabError: a row failed twice; the others' results stand.
    """
    raise NotImplementedError
