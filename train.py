"""Train InternVL 2.5: `python train.py [overrides]`, documented in conf/train.yaml.

command line ──Hydra──> DictConfig ──config.compose──> RunConfig ──run──> outputs/<experiment>/<hash>
"""

from __future__ import annotations

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from internvl_lab.config.compose import CONFIG_DIR, plain, typed_config
from internvl_lab.errors import InternVLLabError
from internvl_lab.run import Invocation, run


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="train")
def main(raw: DictConfig) -> float | None:
    """Run one configuration and return its score, so that Hydra sweepers can optimise it."""
    node = HydraConfig.get()
    try:
        return run(
            typed_config(raw),
            Invocation(
                settings=plain(raw),
                overrides=tuple(node.overrides.task),
                multirun=node.mode == RunMode.MULTIRUN,
            ),
        )
    except InternVLLabError as error:
        if node.mode == RunMode.MULTIRUN:
            raise
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
