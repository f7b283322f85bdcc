"""What packs will really hold, where an index of the data lies on disk: the planner packs the first block.

Nothing is scanned or generated here: without an index, or for remote shards, the budgets bound a pack instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from internvl_lab.config import RunConfig, SourceConfig, StageConfig
from internvl_lab.data import Cost, Mixture, Plan, ShardIndex
from internvl_lab.errors import ConfigError, ShardError
from internvl_lab.models import pack_cost
from internvl_lab.scaling.memory_blocks import PackUse
from internvl_lab.text import ChatTemplate


def measure_packs(
    config: RunConfig, stage: StageConfig, sources: Mapping[str, SourceConfig], template: ChatTemplate
) -> PackUse | None:
    """Return the mean pack of the first block of a stage, or None where an index is missing or cannot be read.

    The index does not know which tokens are supervised: all that are not visual count.

    Args:
        config: of the run.
        stage: the stage.
        sources: its mixture, with real folders.
        template: names the index, and counted its tokens.
    """
    try:
        indexes = {name: (source, _index(source, template)) for name, source in sources.items()}
        mixture = Mixture(indexes, config.tiling, config.packing, config.data.long_samples)
    except (ShardError, ConfigError):
        return None
    cost = Cost(*pack_cost(config.model, stage.trainable, stage.lora.parts))
    plan = Plan(mixture, config.packing, config.seed, cost, config.packs_per_step(stage))
    packs = next(plan.blocks(0), [])
    if not packs:
        return None
    tokens, tiles = mixture.sizes(np.concatenate(packs), config.seed, 0)
    num_tokens, num_tiles = float(tokens.sum()) / len(packs), float(tiles.sum()) / len(packs)
    return PackUse(
        tokens=num_tokens,
        sum_sq=float(np.square(tokens.astype(np.float64)).sum()) / len(packs),
        tiles=num_tiles,
        supervised_rows=num_tokens - num_tiles * config.model.num_visual_tokens,
    )


def _index(source: SourceConfig, template: ChatTemplate) -> ShardIndex:
    """Load the index beside local shards.

    Raises:
        ShardError: there is none.
    """
    return ShardIndex.load(Path(source.shards) / f".index-{template.fingerprint}.npz")
