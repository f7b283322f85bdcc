"""Packing policies of others, to compare with: from samples in order of arrival to packs of their numbers.

`official` is the authors' first-fit over the whole stream. `energon_knapsack` is the greedy knapsack of Megatron-LM's
example for Energon (Energon itself leaves packing to its user), which bounds tokens only; here it also respects the
tiles, because cutting packs by tiles afterwards would cost it 40 % more packs. `flush_ffd` is first-fit decreasing.
The latter two fill a buffer of 1000 samples, pack it, and begin anew.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator

import numpy as np

from internvl_lab.data.first_fit import first_fit

BUFFER_SIZE = 1000
"""Ten times the authors' 100 gains these policies 3 % of packs, a hundred times nothing more (research notes)."""

Item = tuple[int, int, int]
"""(tokens, tiles, number)."""
Packer = Callable[[np.ndarray, np.ndarray, int, int], list[list[int]]]
"""(tokens (n,), tiles (n,), max_tokens, max_tiles) to packs of positions."""


def official(tokens: np.ndarray, tiles: np.ndarray, max_tokens: int, max_tiles: int) -> list[list[int]]:
    """Pack (n,) samples with the authors' first-fit and its 20 open packs; text-only samples take one blank tile."""
    items = zip(tokens.tolist(), np.maximum(tiles, 1).tolist(), range(len(tokens)), strict=True)
    return [pack.members for pack in first_fit(items, max_tokens, max_tiles)]


def energon_knapsack(tokens: np.ndarray, tiles: np.ndarray, max_tokens: int, max_tiles: int) -> list[list[int]]:
    """Pack (n,) samples buffer by buffer: always the longest sample that still fits, by bisection.

    Source: `greedy_knapsack` in Megatron-LM's examples/multimodal/dataset_helpers.py.
    """
    packs = []
    for buffer in _buffers(tokens, tiles):
        rest = sorted(buffer)
        while rest:
            packs.append(_fill_knapsack(rest, max_tokens, max_tiles))
    return packs


def flush_ffd(tokens: np.ndarray, tiles: np.ndarray, max_tokens: int, max_tiles: int) -> list[list[int]]:
    """Pack (n,) samples buffer by buffer: largest share of a limit first, into the first pack with room."""
    packs: list[list[int]] = []
    for buffer in _buffers(tokens, tiles):
        free: list[list[int]] = []
        first = len(packs)
        for size, count, number in sorted(buffer, key=lambda item: -max(item[0] / max_tokens, item[1] / max_tiles)):
            place = next((i for i, room in enumerate(free) if room[0] >= size and room[1] >= count), len(free))
            if place == len(free):
                free.append([max_tokens, max_tiles])
                packs.append([])
            free[place] = [free[place][0] - size, free[place][1] - count]
            packs[first + place].append(number)
    return packs


PACKERS: dict[str, Packer] = {"official": official, "energon_knapsack": energon_knapsack, "flush_ffd": flush_ffd}


def _buffers(tokens: np.ndarray, tiles: np.ndarray) -> Iterator[list[Item]]:
    """Cut the stream into buffers."""
    items = list(zip(tokens.tolist(), tiles.tolist(), range(len(tokens)), strict=True))
    for start in range(0, len(items), BUFFER_SIZE):
        yield items[start : start + BUFFER_SIZE]


def _fill_knapsack(rest: list[Item], free_tokens: int, free_tiles: int) -> list[int]:
    """Take one pack out of `rest`, which is sorted by tokens and not empty."""
    pack: list[int] = []
    place = len(rest)
    while (place := bisect_right(rest, free_tokens, hi=place, key=lambda item: item[0])) > 0:
        place -= 1
        while place >= 0 and rest[place][1] > free_tiles:
            place -= 1
        if place < 0:
            break
        size, count, number = rest.pop(place)
        free_tokens, free_tiles = free_tokens - size, free_tiles - count
        pack.append(number)
    return pack
