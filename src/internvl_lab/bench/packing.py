"""How full packs are, what planning costs, and how long ranks wait: the plan of training against other policies.

```
[[tokens, tiles], ...] ──> SizesOnly (a mixture without shards) ──> Plan ── blocks ──> packs, efficiency, us_per_sample
                                                                      └─── steps of 64 packs ──> slowest/mean cost
```

Efficiency is a lower bound of packs over packs. Two bounds are reported: `volume` (tokens and tiles in all, over their
limits) and `martello_toth` (also knows that large samples cannot share a pack); `efficiency` uses the second.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from internvl_lab.bench.packers import PACKERS, official
from internvl_lab.bench.timing import describe_device
from internvl_lab.config import PackingConfig
from internvl_lab.config.compose import compose
from internvl_lab.constants import PARTS
from internvl_lab.data.mixture import Mixture
from internvl_lab.data.packing import lower_bound, strong_lower_bound
from internvl_lab.data.plan import Cost, Plan
from internvl_lab.errors import ConfigError
from internvl_lab.models.flops import pack_cost

NUM_RANKS = 64
MODELS = ("8b", "1b")
"""Model sizes whose cost the balance is measured with, all parts training."""

Sizes = NDArray[np.int64]
"""(n, 2): tokens and tiles of each sample."""


class SizesOnly(Mixture):
    """Stand in for a mixture where only the sizes of samples are known; an epoch runs through them in order.

    Args:
        sizes: (n, 2) tokens and tiles.
    """

    def __init__(self, sizes: Sizes) -> None:
        self.tokens, self.tiles = sizes[:, 0].copy(), sizes[:, 1].copy()
        self.source_id, self.sample = np.zeros(len(sizes), np.int32), np.arange(len(sizes))
        self.fingerprint = self.settings_fingerprint = "sizes-only"

    def epoch_samples(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Return all positions (n,) in order: the stream is the file's."""
        return self.sample


@dataclass(frozen=True)
class PackingSetting:
    """Say what is packed and how."""

    max_tokens: int = 16384
    max_tiles: int = 48
    block_size: int = PackingConfig.block_size
    seed: int = 0
    repeats: int = 3
    """Timed repetitions of each policy."""

    @property
    def limits(self) -> tuple[int, int]:
        """Return (max_tokens, max_tiles)."""
        return self.max_tokens, self.max_tiles

    def plan(self, sizes: Sizes, cost: Cost | None = None, packs_per_step: int = 1) -> Plan:
        """Plan these (n, 2) sizes as training does; without a cost, packs cost their tokens."""
        packing = PackingConfig(self.max_tokens, self.max_tiles, packs_per_step, self.block_size)
        return Plan(SizesOnly(sizes), packing, self.seed, cost or Cost(1.0, 0.0, 0.0), packs_per_step)


def read_pairs(path: Path) -> Sizes:
    """Read the sizes of samples: a JSON list of [tokens, tiles], or an object with it under `pairs`.

    Returns:
        (n, 2) int64.
    Raises:
        ConfigError: unreadable, or not such a list; names the file.
    """
    try:
        content = json.loads(path.read_bytes())
        pairs = np.array(content["pairs"] if isinstance(content, dict) else content)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"--pairs {path} cannot be read: {error!r}") from error
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind != "i":
        raise ConfigError(f"--pairs {path} must hold a list of [tokens, tiles], whole numbers, under `pairs` or alone")
    if (pairs[:, 0] < 1).any() or (pairs[:, 1] < 0).any():
        raise ConfigError(f"--pairs {path}: a sample has at least 1 token and 0 tiles")
    return pairs.astype(np.int64)


def bench_packing(pairs: Sizes, setting: PackingSetting) -> dict[str, Any]:
    """Pack samples with the plan of training and with its peers.

    Args:
        pairs: (n, 2) tokens and tiles. Samples over a limit are packed by nobody and listed under `oversize`.
    Returns:
        A JSON-able report; `packs` holds sample numbers (positions in `pairs`).
    Raises:
        ConfigError: no sample is within the limits.
    """
    fits = (pairs[:, 0] <= setting.max_tokens) & (pairs[:, 1] <= setting.max_tiles)
    numbers, sizes = np.flatnonzero(fits), pairs[fits]
    if not len(sizes):
        raise ConfigError(f"no sample is within {setting.max_tokens} tokens and {setting.max_tiles} tiles")
    bounds = {
        "volume": lower_bound(sizes[:, 0], sizes[:, 1], *setting.limits),
        "martello_toth": strong_lower_bound(sizes[:, 0], sizes[:, 1], *setting.limits),
    }
    packs, ours = _timed(lambda: [p for block in setting.plan(sizes).blocks(0) for p in block], sizes, bounds, setting)
    costs = {model: _cost_of(model) for model in MODELS}
    ours["balance"] = {model: planned_balance(setting, sizes, cost) for model, cost in costs.items()}
    peers = {}
    for name, packer in PACKERS.items():
        run = partial(packer, sizes[:, 0], sizes[:, 1], *setting.limits)
        _, peers[name] = _timed(run, sizes, bounds, setting)
    peers["official"]["balance"] = {model: official_balance(setting, sizes, cost) for model, cost in costs.items()}
    return {
        "device": describe_device(),
        "samples": len(pairs),
        "max_tokens": setting.max_tokens,
        "max_tiles": setting.max_tiles,
        "block_size": setting.block_size,
        "seed": setting.seed,
        "lower_bounds": bounds,
        **ours,
        "peers": peers,
        "oversize": np.flatnonzero(~fits).tolist(),
        "packs": [numbers[pack].tolist() for pack in packs],
    }


def planned_balance(setting: PackingSetting, sizes: Sizes, cost: Cost) -> float | None:
    """Return slowest/mean cost over 64 ranks, mean over the steps of the plan's whole windows.

    Args:
        sizes: (n, 2) tokens and tiles.
    Returns:
        At least 1; None for too few samples for one step of each window.
    """
    plan = setting.plan(sizes, cost, NUM_RANKS)
    whole = plan.packs_in_epoch(0) // plan.window_size * plan.window_size
    costs = _sample_costs(sizes, cost)
    return _slowest_over_mean([costs[[row for _, row in plan.pack(k).samples]].sum() for k in range(whole)])


def official_balance(setting: PackingSetting, sizes: Sizes, cost: Cost) -> float | None:
    """Return the same where each rank packs its own stripe of the (n, 2) samples with the authors' policy."""
    costs = _sample_costs(sizes, cost)
    ranks = []
    for rank in range(NUM_RANKS):
        rows = np.arange(rank, len(sizes), NUM_RANKS)
        packs = official(sizes[rows, 0], sizes[rows, 1], *setting.limits)
        ranks.append([costs[rows[pack]].sum() for pack in packs])
    return _slowest_over_mean([cost for step in zip(*ranks, strict=False) for cost in step])


def packing_table(report: Mapping[str, Any]) -> Table:
    """Lay out the policies of a report."""
    bounds = ", ".join(f"{name} {packs}" for name, packs in report["lower_bounds"].items())
    caption = f"{report['samples']} samples, {len(report['oversize'])} oversize; lower bounds of packs: {bounds}"
    table = Table("policy", title=f"{report['max_tokens']} tokens, {report['max_tiles']} tiles", caption=caption)
    columns = ("num_packs", "efficiency", "efficiency_volume", "token_fill", "tile_fill", "us_per_sample")
    for column in columns + MODELS:
        table.add_column(f"slowest/mean {column}" if column in MODELS else column.replace("_", " "), justify="right")
    for name, figures in {"ours": report, **report["peers"]}.items():
        values = [figures[column] for column in columns] + [figures.get("balance", {}).get(m) for m in MODELS]
        table.add_row(name, *("-" if value is None else f"{value:.4g}" for value in values))
    return table


def _timed(
    run: Callable[[], list[Any]], sizes: Sizes, bounds: Mapping[str, int], setting: PackingSetting
) -> tuple[list[Any], dict[str, Any]]:
    """Run a policy `repeats` times; return its packs and figures."""
    seconds = []
    for _ in range(setting.repeats):
        start = time.process_time()
        packs = run()
        seconds.append(time.process_time() - start)
    count = len(packs)
    figures: dict[str, Any] = {
        "num_packs": count,
        "efficiency": bounds["martello_toth"] / count,
        "efficiency_volume": bounds["volume"] / count,
        "token_fill": float(sizes[:, 0].sum()) / count / setting.max_tokens,
        "tile_fill": float(sizes[:, 1].sum()) / count / setting.max_tiles,
        "us_per_sample": statistics.median(seconds) / len(sizes) * 1e6,
    }
    return packs, figures


def _cost_of(model: str) -> Cost:
    """Return the cost model of a published size with all parts training."""
    return Cost(*pack_cost(compose([f"model=internvl2_5_{model}"]).model, PARTS))


def _sample_costs(sizes: Sizes, cost: Cost) -> NDArray[np.float64]:
    """Return the cost of each sample (n,)."""
    tokens = sizes[:, 0].astype(np.float64)
    return cost.tokens * tokens + cost.tokens_squared * tokens**2 + cost.tiles * sizes[:, 1]


def _slowest_over_mean(costs: list[float]) -> float | None:
    """Average max/mean over steps of `NUM_RANKS` packs, given in a row; None where there is no step."""
    steps = np.array(costs).reshape(-1, NUM_RANKS)
    return float((steps.max(1) / steps.mean(1)).mean()) if math.prod(steps.shape) else None
