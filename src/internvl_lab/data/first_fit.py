"""Pack as the authors do, for reproduction: first-fit into at most 20 open packs, fullest in tiles first.

```
sample ── first open pack with room, else a new one ──> back into the list, ordered by tiles ──┐
                                                                                              ▼
           emit: exactly max_tokens │ exactly max_tiles │ the first of the list, where more than 20 are open
```

A pack that is nearly full of tokens but not of tiles stays open until others push it out, and it is the pack with most
tiles that goes, whatever its tokens: on text-heavy streams a fifth of the tokens stays empty (`bench packing`). The
policy is a function of the order of the samples alone, so the plan resumes it as exactly as its own; unlike the
authors' stream, it is flushed at the end of each block. Source: authors' `train/dataset_packed.py`; spec section 6.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

MAX_OPEN_PACKS = 20
"""`max_buffer_size` of the authors' stage scripts."""


@dataclass
class OpenPack:
    """Hold a pack that may still grow."""

    tokens: int
    tiles: int
    members: list[int] = field(default_factory=list)


def pack_first_fit(
    tokens: np.ndarray, tiles: np.ndarray, max_tokens: int, max_tiles: int, rng: np.random.Generator
) -> list[list[int]]:
    """Partition a block of samples with the authors' policy, in the order in which it emits packs.

    Args:
        tokens, tiles: (n,) integers, each within the limits; a sample without tiles counts as one (the authors' blank
            tile of text-only samples).
        max_tokens, max_tiles: limits of a pack, inclusive.
        rng: draws the order of the samples.
    Returns:
        Packs as lists of positions in 0..n-1; every position exactly once.
    Raises:
        ValueError: a sample alone exceeds a limit.
    """
    if len(tokens) and (int(tokens.max()) > max_tokens or int(tiles.max()) > max_tiles):
        raise ValueError(f"a sample exceeds the limits of a pack ({max_tokens} tokens, {max_tiles} tiles)")
    visit = rng.permutation(len(tokens))
    sizes = zip(tokens[visit].tolist(), np.maximum(tiles[visit], 1).tolist(), visit.tolist(), strict=True)
    return [pack.members for pack in first_fit(sizes, max_tokens, max_tiles)]


def first_fit(
    samples: Iterable[tuple[int, int, int]], max_tokens: int, max_tiles: int, max_open: int = MAX_OPEN_PACKS
) -> Iterator[OpenPack]:
    """Yield packs of a stream of (tokens, tiles, member) as the authors' `PackedDataset` does."""
    open_packs: list[OpenPack] = []
    for tokens, tiles, member in samples:
        pack = _take_fitting(open_packs, max_tokens - tokens, max_tiles - tiles) or OpenPack(0, 0)
        pack.tokens, pack.tiles = pack.tokens + tokens, pack.tiles + tiles
        pack.members.append(member)
        if pack.tokens == max_tokens:
            yield pack
        else:
            place = next((i for i, other in enumerate(open_packs) if other.tiles < pack.tiles), len(open_packs))
            open_packs.insert(place, pack)
        while open_packs and (open_packs[0].tiles == max_tiles or len(open_packs) > max_open):
            yield open_packs.pop(0)
    yield from open_packs


def _take_fitting(open_packs: list[OpenPack], free_tokens: int, free_tiles: int) -> OpenPack | None:
    """Remove and return the first pack that has room left beside so much."""
    for i, pack in enumerate(open_packs):
        if pack.tokens <= free_tokens and pack.tiles <= free_tiles:
            return open_packs.pop(i)
    return None
