"""Train InternVL 2.5: `python train.py [overrides]`, documented in conf/train.yaml.

command line ──Hydra──> DictConfig ──config.compose──> RunConfig ──run──> outputs/<experiment>/<hash>
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from internvl_lab.config.compose import CONFIG_DIR, explain, plain, typed_config
from internvl_lab.errors import InternVLLabError
from internvl_lab.run import Invocation, run


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="train")
def main(raw: DictConfig) -> float | None:
    """Run one configuration and return its score, so that Hydra sweepers can optimise it."""
    node = HydraConfig.get()
    multirun = node.mode == RunMode.MULTIRUN
    try:
        return run(
            typed_config(raw),
            Invocation(plain(raw), tuple(node.overrides.task), multirun, str(node.runtime.choices["hydra/launcher"])),
        )
    except InternVLLabError as error:
        if multirun:
            raise  # Hydra first runs the other jobs
        _refuse(str(error))


def _refuse(line: str) -> NoReturn:
    sys.stderr.write(f"error: {line}\n")
    sys.exit(2)


def command_line() -> None:
    """Let Hydra read the command line; what it or a run refuses is one line and status 2."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its errors itself, in many lines, and exits
    try:
        main()
    except Exception as error:
        line = explain(error, [word for word in sys.argv[1:] if not word.startswith("-")])
        if line is None:
            raise
        _refuse(line)


if __name__ == "__main__":
    command_line()
