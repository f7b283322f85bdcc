"""Plan which samples share a pack and in which order packs come: a pure function of (index, settings, seed).

```
epoch 0: order ── cut into blocks ── pack_block each ──┐
epoch 1: order ── cut into blocks ── pack_block each ──┼──> one unending stream of packs
...                                                    ┘      │ cut into windows of group_window steps
                                                              ▼
         window: sort by cost ── cut into steps of like cost ── shuffle the steps ── balance in a step ──> pack(k)
```

World size, worker count and process do not enter, so any of them may change between stop and resume. Blocks and
windows are computed when first needed and the last few kept: over 1 million samples a block of 8192 takes 0.2 to 0.4 s
of CPU time and a window of 8 steps of 512 packs 0.6 to 1.4 s, memory stays the same (446 MB after the second and after
the ninth window, interpreter and torch included), and while a thread plans the next window, packs of the one in use
are handed out within 0.1 ms. A step that straddles the end of an epoch is completed from the next one, because the
stream does not stop. Sources of the figures: research/data_pipeline sections 2 and 7.
"""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from internvl_lab.config import PackingConfig
from internvl_lab.data.first_fit import pack_first_fit
from internvl_lab.data.mixture import Mixture, copy_numbers, hash16
from internvl_lab.data.packing import lower_bound, pack_block
from internvl_lab.errors import ConfigError

BLOCKS_KEPT = 8
"""Blocks held in memory; a window reads its blocks in order, so few suffice."""
WINDOWS_KEPT = 2
"""Windows held in memory: the one in use and the one planned ahead."""
_BLOCK_STREAM, _WINDOW_STREAM = 1, 2
"""Keep the random streams of blocks and windows apart."""

T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """Hold the coefficients of a pack's cost a * tokens + b * sum of squared lengths + c * tiles (FLOPs)."""

    tokens: float
    tokens_squared: float
    tiles: float


@dataclass(frozen=True)
class Pack:
    """Name the samples of one pack."""

    epoch: int
    samples: tuple[tuple[int, int], ...]
    """(source id, row in that source's index) of each sample, in the order in which they stand in the pack."""
    copies: tuple[int, ...] = ()
    """Which appearance in the epoch each sample is, where `repeat` is above 1; empty = the first of each."""

    @property
    def numbered(self) -> list[tuple[int, int, int]]:
        """List (source id, row, copy) of each sample."""
        copies = self.copies or (0,) * len(self.samples)
        return [(*sample, copy) for sample, copy in zip(self.samples, copies, strict=True)]


class Picks(NamedTuple):
    """Hold s samples of one epoch, before they have names."""

    positions: NDArray[np.int64]
    """(s,) positions in the mixture."""
    copies: NDArray[np.int16]
    """(s,) see `mixture.copy_numbers`."""

    def take(self, places: NDArray[np.int64] | list[int] | slice) -> Picks:
        """Pick some of them, by (n,) places or a slice."""
        return Picks(self.positions[places], self.copies[places])


class Anchor(NamedTuple):
    """Say where a block begins in the stream of packs, so that a resumed run need not plan from the beginning."""

    first_pack: int
    epoch: int
    block: int


class Plan:
    """Answer which samples pack k holds, for any k.

    Args:
        mixture: the samples.
        packing: limits, block size and grouping.
        seed: non-negative.
        cost: cost model of a pack; decides which packs share a step.
        packs_per_step: packs of one optimizer step over all ranks.
    Raises:
        ConfigError: `packs_per_step` below 1.
    """

    def __init__(self, mixture: Mixture, packing: PackingConfig, seed: int, cost: Cost, packs_per_step: int) -> None:
        if packs_per_step < 1:
            raise ConfigError(f"packs_per_step={packs_per_step} must be at least 1")
        self.mixture, self.packing, self.seed, self.cost = mixture, packing, seed, cost
        self.packs_per_step = packs_per_step
        self._anchors = [Anchor(0, 0, 0)]
        self._orders = _Kept[Picks](2)
        self._blocks = _Kept[list[Picks]](BLOCKS_KEPT)
        self._windows = _Kept[list[Pack]](WINDOWS_KEPT)
        self._lock = threading.RLock()

    @property
    def window_size(self) -> int:
        """Count the packs of a grouping window."""
        return self.packing.group_window * self.packs_per_step

    @property
    def fingerprint(self) -> dict[str, str]:
        """Hash what the stream depends on besides the seed: `index` (content) and `config` (settings)."""
        packing = {**asdict(self.packing), "packs_per_step": self.packs_per_step}
        settings = [self.mixture.settings_fingerprint, packing, asdict(self.cost)]
        return {"index": self.mixture.fingerprint, "config": hash16(settings)}

    def pack(self, number: int) -> Pack:
        """Return pack `number` (from 0) of the unending stream. Safe to call from several threads."""
        window, offset = divmod(number, self.window_size)
        packs = self._windows.peek(window)  # without the lock: planning ahead must not hold up the window in use
        if packs is None:
            with self._lock:
                packs = self._windows.get(window, lambda: self._plan_window(window))
        return packs[offset]

    def anchor(self, number: int) -> Anchor:
        """Return the last known block that begins at or before the window of pack `number`; plans nothing."""
        with self._lock:
            start = number // self.window_size * self.window_size
            return self._anchors[bisect_right(self._anchors, start, key=lambda a: a.first_pack) - 1]

    def seek(self, anchor: Anchor) -> None:
        """Remember where a block begins, from `anchor` of a plan with the same fingerprint and seed."""
        with self._lock:
            self._remember(anchor)

    def packs_in_epoch(self, epoch: int) -> int:
        """Count the packs of one epoch; plans all its blocks."""
        return sum(map(len, self.blocks(epoch)))

    def blocks(self, epoch: int) -> Iterator[list[NDArray[np.int64]]]:
        """Yield the packs of each block of an epoch, before grouping, as (s,) positions in the mixture."""
        for block in self._picked_blocks(epoch):
            yield [picks.positions for picks in block]

    def epoch_packs(self, epoch: int) -> Iterator[Pack]:
        """Yield the packs of one epoch block by block, before grouping."""
        for block in self._picked_blocks(epoch):
            yield from (self._named(epoch, picks) for picks in block)

    @property
    def fill_stats(self) -> dict[str, float]:
        """Measure the blocks in memory (the first one, if there are none).

        Returns:
            `packs`, `samples_per_pack`, `token_fill` and `tile_fill` (share of the limits in use), and `efficiency`
            (the lower bound of packs over packs).
        """
        with self._lock:
            if not len(self._blocks):
                self._block(0, 0)
            blocks = [block for block in self._blocks.values() if block]
        packs = max(1, sum(len(block) for block in blocks))
        bound = tokens = tiles = samples = 0
        for positions in (np.concatenate([picks.positions for picks in block]) for block in blocks):
            sizes = self.mixture.sizes(positions, self.seed, 0)  # of videos, the sizes of one epoch
            bound += lower_bound(*sizes, self.packing.max_tokens, self.packing.max_tiles)
            samples, tokens, tiles = samples + len(positions), tokens + int(sizes[0].sum()), tiles + int(sizes[1].sum())
        return {
            "packs": float(packs),
            "samples_per_pack": samples / packs,
            "token_fill": tokens / packs / self.packing.max_tokens,
            "tile_fill": tiles / packs / self.packing.max_tiles,
            "efficiency": bound / packs,
        }

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the lock and without what can be planned again."""
        return {
            name: getattr(self, name) for name in ("mixture", "packing", "seed", "cost", "packs_per_step", "_anchors")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore with empty memory."""
        anchors = state.pop("_anchors")
        Plan.__init__(self, **state)
        self._anchors = anchors

    def _plan_window(self, window: int) -> list[Pack]:
        """Put like costs into one step, and the steps into random order.

        Sorting makes the ranks of a step wait less for each other (max/mean cost 1.05 -> 1.01 at 64 ranks); the random
        order keeps the window from running from cheap to dear.
        """
        packs = self._stream(window * self.window_size, self.window_size)
        costs = np.array([self._sample_costs(picks, epoch).sum() for epoch, picks in packs])
        steps = np.argsort(costs, kind="stable").reshape(-1, self.packs_per_step)
        rng = np.random.default_rng([self.seed, window, _WINDOW_STREAM])
        ordered = [step[i] for step in rng.permutation(steps) for i in balanced_order(costs[step])]
        return [self._named(*packs[i]) for i in ordered]

    def _named(self, epoch: int, picks: Picks) -> Pack:
        """Name the samples of one pack."""
        source_id, sample = self.mixture.source_id[picks.positions], self.mixture.sample[picks.positions]
        copies = tuple(picks.copies.tolist()) if picks.copies.any() else ()
        return Pack(epoch, tuple(zip(source_id.tolist(), sample.tolist(), strict=True)), copies)

    def _stream(self, start: int, count: int) -> list[tuple[int, Picks]]:
        """Read packs `start` to `start + count` of the ungrouped stream, as (epoch, samples)."""
        at = self.anchor(start)
        packs: list[tuple[int, Picks]] = []
        while len(packs) < count:
            block = self._block(at.epoch, at.block)
            begin = max(0, start - at.first_pack)
            packs += [(at.epoch, picks) for picks in block[begin : begin + count - len(packs)]]
            last = at.block + 1 >= self._num_blocks(at.epoch)
            at = Anchor(at.first_pack + len(block), at.epoch + last, 0 if last else at.block + 1)
            self._remember(at)
        return packs

    def _picked_blocks(self, epoch: int) -> Iterator[list[Picks]]:
        """Yield the packs of each block of an epoch."""
        for block in range(self._num_blocks(epoch)):
            with self._lock:
                packs = self._block(epoch, block)
            yield packs

    def _block(self, epoch: int, block: int) -> list[Picks]:
        """Return the packs of one block."""
        return self._blocks.get((epoch, block), lambda: self._plan_block(epoch, block))

    def _plan_block(self, epoch: int, block: int) -> list[Picks]:
        """Pack one block, independent of all others. An epoch is cut into equal blocks: no tiny last one."""
        order, count = self._order(epoch), self._num_blocks(epoch)
        if count == 0:
            return []
        total = len(order.positions)
        rows = order.take(slice(total * block // count, total * (block + 1) // count))
        rng = np.random.default_rng([self.seed, epoch, block, _BLOCK_STREAM])
        sizes = self._sizes(rows, epoch)
        needs = *sizes, self.packing.max_tokens, self.packing.max_tiles
        if self.packing.policy == "single":
            return [
                rows.take(slice(i, i + 1))
                for i in rng.permutation(total * (block + 1) // count - total * block // count)
            ]
        if self.packing.policy == "official":
            packs = pack_first_fit(*needs, rng)
        elif self.packing.max_cost_ratio is None:
            packs = pack_block(*needs, rng)
        else:
            packs = pack_block(*needs, rng, self._sample_costs(rows, epoch), self.packing.max_cost_ratio)
        return [rows.take(pack) for pack in packs]

    def _order(self, epoch: int) -> Picks:
        """Return an epoch's samples in order."""

        def draw() -> Picks:
            """Order them and number their copies."""
            positions = self.mixture.epoch_samples(self.seed, epoch)
            return Picks(positions, copy_numbers(positions))

        return self._orders.get(epoch, draw)

    def _num_blocks(self, epoch: int) -> int:
        """Count the blocks of an epoch; 0 if chance gave it no sample (a small source with repeat < 1)."""
        return -(-len(self._order(epoch).positions) // self.packing.block_size)

    def _sizes(self, picks: Picks, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (tokens, tiles) of samples in an epoch, each (n,)."""
        return self.mixture.sizes(picks.positions, self.seed, epoch, picks.copies)

    def _sample_costs(self, picks: Picks, epoch: int) -> NDArray[np.float64]:
        """Model the cost of each sample in an epoch, (n,); a pack costs the sum of its samples'."""
        tokens, tiles = self._sizes(picks, epoch)
        squares = np.square(tokens.astype(np.float64))
        return self.cost.tokens * tokens + self.cost.tokens_squared * squares + self.cost.tiles * tiles

    def _remember(self, anchor: Anchor) -> None:
        """Insert an anchor unless it is known."""
        place = bisect_right(self._anchors, anchor) - 1
        if place < 0 or self._anchors[place] != anchor:
            insort(self._anchors, anchor)


def balanced_order(costs: NDArray[np.float64]) -> list[int]:
    """Order packs so that contiguous slices of equal length cost about the same, for any number of ranks.

    Cheapest and dearest are paired, then pairs with pairs, while the number of groups is even; halves, quarters and
    further contiguous parts are then balanced.

    Args:
        costs: (n,).
    Returns:
        A permutation of 0..n-1.
    """
    groups = [([int(i)], float(costs[i])) for i in np.argsort(costs, kind="stable")]
    while len(groups) > 1 and len(groups) % 2 == 0:
        pairs = zip(groups[: len(groups) // 2], reversed(groups[len(groups) // 2 :]), strict=True)
        groups = sorted(((a + b, x + y) for (a, x), (b, y) in pairs), key=lambda group: group[1])
    return [i for members, _ in groups for i in members]


class _Kept(Generic[T]):
    """Remember the values that were used last."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._values: OrderedDict[Hashable, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def peek(self, key: Hashable) -> T | None:
        """Return the value of `key` if it is remembered."""
        return self._values.get(key)

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return the value of `key`, computing it where it is not remembered."""
        if key not in self._values:
            self._values[key] = compute()
        self._values.move_to_end(key)
        if len(self._values) > self._capacity:
            self._values.popitem(last=False)
        return self._values[key]

    def values(self) -> list[T]:
        """Return what is remembered."""
        return list(self._values.values())
