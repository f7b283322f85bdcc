"""Pack samples into rows bounded by tokens and by tiles, close to the lower bound.

```
tokens, tiles (n,) ── visit in random order ──> pool of 100 ── oldest seeds a pack ──> fill it ──> packs
                                                     ▲                                  │
                                                     └────────── refill ────────────────┘
```

Two ways to fill, because neither wins everywhere: `fill_greedy` takes the largest fitting sample and is best when
sizes are lumpy; `fill_exact` solves a two-dimensional subset-sum over the pool and is best when sizes vary.
`pack_block` plans a block with both and keeps the shorter plan. Starting each pack from the oldest sample bounds how
long a sample can wait. `bench packing` measures what this gives; the authors' policy is in `first_fit`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

POOL_SIZE = 100
"""Samples that `fill_exact` may choose from; 50 to 100 suffice, more only adds delay (measured)."""
GREEDY_POOL_SIZE = 300
"""Samples that `fill_greedy` may choose from: 0.1 to 0.2 % fewer packs than with 100, and as many as with 1000."""
MAX_CANDIDATES = 64
"""Samples that enter the subset-sum of one pack; bounds its time."""
TOKEN_LEVELS = 1024
"""Resolution of the token axis in the subset-sum; 16384 tokens give a grain of 16."""
CHECK_EVERY = 8
"""Candidates of the subset-sum between two looks whether it may stop; looking costs as much as adding one."""
TARGET_SLACK = 0.01
"""Share of the free budget by which the non-binding dimension may miss its target in `fill_exact`'s early stop."""

Item = tuple[int, int, int]
"""(tokens, tiles, position)."""
Fill = Callable[[list[Item], "Budget"], list[int]]
"""Choose positions in the pool (never 0, the seed) that share a pack with the seed."""


@dataclass(frozen=True)
class Budget:
    """Hold the limits of a pack and what a perfectly even pack of this block would contain."""

    max_tokens: int
    max_tiles: int
    mean_tokens: float
    """Tokens of a pack if the block filled its lower bound of packs evenly."""
    mean_tiles: float
    """Tiles of such a pack."""
    max_cost: float = math.inf
    """Limit of the sum of `costs` in a pack; a sample that alone costs more has a pack to itself."""
    costs: Sequence[float] = ()
    """Cost of each position; read only under a finite `max_cost`."""

    @property
    def tile_bound(self) -> bool:
        """Tell whether tiles, not tokens, decide how many packs the block needs."""
        return self.mean_tiles / self.max_tiles > self.mean_tokens / self.max_tokens

    def cost_of(self, item: Item) -> float:
        """Return what a sample takes from `max_cost`; 0 where that is infinite."""
        return 0.0 if math.isinf(self.max_cost) else self.costs[item[2]]


def pack_block(
    tokens: np.ndarray,
    tiles: np.ndarray,
    max_tokens: int,
    max_tiles: int,
    rng: np.random.Generator,
    costs: np.ndarray | None = None,
    max_cost_ratio: float = math.inf,
) -> list[list[int]]:
    """Partition a block of samples into packs.

    Args:
        tokens, tiles: (n,) integers, each within the limits.
        max_tokens, max_tiles: limits of a pack, inclusive.
        rng: draws the order in which samples enter the pool, and the order of the packs.
        costs: (n,) cost of each sample; needed only for a finite `max_cost_ratio`.
        max_cost_ratio: third limit of a pack: cost, as a multiple of what each pack would cost if the block filled its
            lower bound of packs evenly. A sample that alone costs more has a pack to itself.
    Returns:
        Packs as lists of positions in 0..n-1; every position exactly once.
    Raises:
        ValueError: a sample alone exceeds a limit.
    """
    if len(tokens) == 0:
        return []
    if int(tokens.max()) > max_tokens or int(tiles.max()) > max_tiles:
        raise ValueError(f"a sample exceeds the limits of a pack ({max_tokens} tokens, {max_tiles} tiles)")
    visit = rng.permutation(len(tokens))
    items = list(zip(tokens[visit].tolist(), tiles[visit].tolist(), visit.tolist(), strict=True))
    bound = lower_bound(tokens, tiles, max_tokens, max_tiles)
    budget = Budget(max_tokens, max_tiles, float(tokens.sum()) / bound, float(tiles.sum()) / bound)
    if costs is not None and math.isfinite(max_cost_ratio):
        budget = replace(budget, max_cost=max_cost_ratio * float(costs.sum()) / bound, costs=costs.tolist())
    packs = pack_pool(items, budget, fill_exact)
    if len(packs) > bound:
        other = pack_pool(items, budget, fill_greedy, GREEDY_POOL_SIZE)
        packs = other if len(other) < len(packs) else packs
    return [packs[i] for i in rng.permutation(len(packs))]


def lower_bound(tokens: np.ndarray, tiles: np.ndarray, max_tokens: int, max_tiles: int) -> int:
    """Return the number of packs, at least 1, that no packing of these samples can undercut; tokens, tiles (n,)."""
    return max(1, -(-int(tokens.sum()) // max_tokens), -(-int(tiles.sum()) // max_tiles))


def strong_lower_bound(tokens: np.ndarray, tiles: np.ndarray, max_tokens: int, max_tiles: int) -> int:
    """Return a bound that also knows that large samples cannot share a pack, for tokens, tiles (n,).

    At 8192 tokens and 24 tiles two samples of 13 tiles never share a pack: 5669 packs for the 5417 of `lower_bound`.
    """
    return max(1, _martello_toth(tokens, max_tokens), _martello_toth(tiles, max_tiles))


def _martello_toth(sizes: np.ndarray, limit: int) -> int:
    """Bound the packs needed in one dimension; sizes (n,).

    For each threshold k up to half the limit: samples over limit - k stand alone (no sample of k or more fits beside
    them), those over half the limit each open a pack, and samples from k to half have only the latter's room for free.
    Source: Martello and Toth, Knapsack Problems (1990), section 8.3.3, bound L2.
    """
    falling = np.sort(sizes)[::-1].astype(np.int64)
    sums = np.concatenate([[0], np.cumsum(falling)])
    halves = int(np.count_nonzero(2 * falling > limit))
    k = np.concatenate([[0], np.unique(falling[halves:])])
    alone = np.searchsorted(-falling, k - limit)
    medium = np.searchsorted(-falling, -k, side="right")
    free = (halves - alone) * limit - (sums[halves] - sums[alone])
    rest = np.maximum(0, -(-(sums[medium] - sums[halves] - free) // limit))
    return halves + int(rest.max())


def pack_pool(items: list[Item], budget: Budget, fill: Fill, pool_size: int = POOL_SIZE) -> list[list[int]]:
    """Pack a stream through a pool of `pool_size` samples, oldest first; `fill` completes each pack."""
    stream = iter(items)
    pool = list(islice(stream, pool_size))
    packs = []
    while pool:
        chosen = [0, *fill(pool, budget)]
        packs.append([pool[i][2] for i in chosen])
        taken = set(chosen)
        pool = [item for i, item in enumerate(pool) if i not in taken]
        pool.extend(islice(stream, pool_size - len(pool)))
    return packs


def fill_greedy(pool: list[Item], budget: Budget) -> list[int]:
    """Add the fitting sample that fills most, again and again, until none fits.

    "Most" is the larger share of the two limits, so that a sample with many tiles and one with many tokens compete on
    the dimension that each of them strains; ties go to the older sample.
    """
    free_tokens, free_tiles = budget.max_tokens - pool[0][0], budget.max_tiles - pool[0][1]
    free_cost = budget.max_cost - budget.cost_of(pool[0])
    per_token, per_tile = 1 / budget.max_tokens, 1 / budget.max_tiles
    shares = [max(tokens * per_token, tiles * per_tile) for tokens, tiles, _ in pool]
    order = sorted(range(1, len(pool)), key=shares.__getitem__, reverse=True)  # stable: of equals, the older first
    chosen = []
    for i in order:  # a sample that does not fit now never fits later, so one pass is enough
        tokens, tiles, _ = pool[i]
        if tokens <= free_tokens and tiles <= free_tiles and (cost := budget.cost_of(pool[i])) <= free_cost:
            chosen.append(i)
            free_tokens, free_tiles, free_cost = free_tokens - tokens, free_tiles - tiles, free_cost - cost
    return chosen


def fill_exact(pool: list[Item], budget: Budget) -> list[int]:
    """Choose the subset that fills the binding dimension and comes closest to the block's mean in the other.

    Subset-sum over (tiles, tokens in grains) as one Python integer per candidate: bit `tiles * stride + grains` says
    that some subset of the candidates so far reaches that sum. A row is twice as wide as the limit, so that adding a
    candidate (a shift) never carries into the next row before it is masked. Cost is no axis of it: a subset that costs
    too much gives way to `fill_greedy`'s.
    """
    grain = max(1, budget.max_tokens // TOKEN_LEVELS)
    free = (budget.max_tokens - pool[0][0]) // grain
    rows = budget.max_tiles - pool[0][1]
    stride = 2 * free + 1
    mask = _row_mask(free, rows, stride)
    reachable = [1]
    used: list[int] = []
    shifts: list[int] = []
    aim = _aim(pool[0], budget, grain, free, rows)
    for i in range(1, len(pool)):
        tokens, tiles, _ = pool[i]
        grains = -(-tokens // grain)
        if grains > free or tiles > rows:
            continue
        shift = tiles * stride + grains
        reachable.append(reachable[-1] | (reachable[-1] << shift) & mask)
        used.append(i)
        shifts.append(shift)
        if len(used) == MAX_CANDIDATES or (len(used) % CHECK_EVERY == 0 and aim.met(reachable[-1], stride)):
            break
    state = aim.best(reachable[-1], stride)
    chosen = []
    for step in range(len(used), 0, -1):
        if not reachable[step - 1] >> state & 1:  # taken only where needed, so older samples go first
            chosen.append(used[step - 1])
            state -= shifts[step - 1]
    affordable = sum(budget.cost_of(pool[i]) for i in (0, *chosen)) <= budget.max_cost
    return chosen if affordable else fill_greedy(pool, budget)


def _row_mask(free: int, rows: int, stride: int) -> int:
    """Build the bits of all allowed sums: `free + 1` in each of `rows + 1` rows (doubling, not a loop over rows)."""
    mask, built, total = (1 << (free + 1)) - 1, 1, rows + 1
    while built < total:
        step = min(built, total - built)
        mask |= (mask & ((1 << (step * stride)) - 1)) << (built * stride)
        built += step
    return mask


@dataclass(frozen=True)
class _Aim:
    """Say which reachable sum is best: (tiles, grains) still to add."""

    rows: int
    free: int
    target: int
    """Wanted value of the dimension that does not bind: grains if `tile_bound`, else tiles."""
    slack: int
    tile_bound: bool

    def met(self, bits: int, stride: int) -> bool:
        """Tell whether a full pack near the target is reachable already, so that the search may stop."""
        if self.tile_bound:
            low = max(0, self.target - self.slack)
            return bits >> (self.rows * stride + low) & ((1 << (2 * self.slack + 1)) - 1) != 0
        rows = range(min(self.rows, self.target + self.slack), max(0, self.target - self.slack) - 1, -1)
        return any(bits >> (row * stride + self.free) & 1 for row in rows)

    def best(self, bits: int, stride: int) -> int:
        """Return the bit position of the best reachable sum."""
        width = (1 << (self.free + 1)) - 1
        if self.tile_bound:
            row = (bits.bit_length() - 1) // stride
            return row * stride + _nearest(bits >> (row * stride) & width, self.target)
        tops = [(bits >> (row * stride) & width).bit_length() - 1 for row in range(self.rows + 1)]
        full = max(tops)
        row = min((r for r, top in enumerate(tops) if top >= full - self.slack), key=lambda r: abs(r - self.target))
        return row * stride + tops[row]


def _aim(seed: Item, budget: Budget, grain: int, free: int, rows: int) -> _Aim:
    """Derive what to add to the seed from the block's mean pack."""
    if budget.tile_bound:
        target = min(free, max(0, int((budget.mean_tokens - seed[0]) // grain)))
        return _Aim(rows, free, target, max(1, int(TARGET_SLACK * budget.max_tokens / grain)), True)
    target = min(rows, max(0, round(budget.mean_tiles - seed[1])))
    return _Aim(rows, free, target, max(1, int(TARGET_SLACK * budget.max_tiles)), False)


def _nearest(bits: int, target: int) -> int:
    """Return the set bit closest to `target`; the lower of two equally close ones. `bits` is not 0."""
    below = (bits & ((1 << (target + 1)) - 1)).bit_length() - 1
    rest = bits >> (target + 1)
    above = target + (rest & -rest).bit_length() if rest else -1
    if below < 0:
        return above
    return below if above < 0 or target - below <= above - target else above
