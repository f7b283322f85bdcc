"""The key-value cache of prompts that are answered several times each.

All answers to one prompt share a row, because they share its keys and values: the answers are the C columns of a
query of length C, and the mask lets each column see the prompt and its own tokens::

    cache of a row   | padding | prompt (shared) | c0 c1 .. | c0 c1 .. | c0 c1 ..        K = T + C · steps
    column 1 sees    |         | x  x  x  x  x  x |    x     |    x     |    x

So N answers read the prompt's cache once, not N times, and a decoding step is one call for all of them. With one
answer a prompt this is plain left-padded decoding. Rows and columns that have ended leave when the rest is at most
half of the work: a selection copies the whole cache, so it must halve the work to pay.

Dimensions: B rows, C columns (answers of a row), T tokens of the longest prompt, K cached tokens, d width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

STATES = ("keys", "values")
ENDED = -1
"""Slot of a column whose answer has ended, or that never had one."""


class Rows:
    """Hold cache, mask and positions of the answers that are still decoded.

    Args:
        cache: keys and values of the prompts end to end, (1, heads, sum of lengths, d) a layer.
        lengths: tokens of each prompt.
        owners: prompt of each row; one prompt may have several rows.
        slots: (B, C) number of each column's answer, or ENDED.
    """

    def __init__(
        self, cache: DynamicCache, lengths: Sequence[int], owners: Sequence[int], slots: NDArray[np.int64]
    ) -> None:
        device = cache.layers[0].keys.device  # type: ignore[union-attr]
        self.cache, self.slots = cache, slots
        self.num_prompt, self.steps = max(lengths), 0
        own = torch.tensor(lengths)[list(owners)]
        self.valid = (torch.arange(self.num_prompt) >= self.num_prompt - own[:, None]).to(device)
        """(B, T) bool; False on left padding."""
        self.positions = own[:, None].to(device)
        """(B, 1) int64, position of the token to be fed next; the same for all columns."""
        self._lay_out(lengths, owners)

    def _lay_out(self, lengths: Sequence[int], owners: Sequence[int]) -> None:
        """Turn the packed cache into left-padded rows: (1, h, sum, d) -> (B, h, T, d)."""
        if len(owners) == 1:
            return
        starts = np.cumsum([0, *lengths])
        # padding points at the prompt's first token; the mask hides it
        columns = np.arange(self.num_prompt)[None, :] - (self.num_prompt - np.array(lengths)[list(owners), None])
        index = torch.from_numpy(columns.clip(0) + starts[list(owners), None]).to(self.valid.device)
        for layer in self.cache.layers:
            for name in STATES:
                setattr(layer, name, getattr(layer, name)[0][:, index].transpose(0, 1))

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Tell which columns (B, C) are still answered."""
        living: NDArray[np.bool_] = self.slots != ENDED
        return living

    def mask(self) -> Tensor:
        """Say what each column sees, the tokens about to be cached included: (B, 1, C, K+C) bool."""
        rows, columns = self.slots.shape
        prompt = self.valid[:, None, None, :].expand(rows, 1, columns, self.num_prompt)
        own = torch.eye(columns, dtype=torch.bool, device=self.valid.device).repeat(1, self.steps + 1)
        return torch.cat([prompt, own.expand(rows, 1, *own.shape)], dim=-1)

    def advance(self) -> None:
        """Count the tokens that were just cached."""
        self.steps += 1
        self.positions = self.positions + 1

    def shrink(self, tokens: Tensor) -> Tensor:
        """Drop ended rows and columns where that halves the work.

        Args:
            tokens: (B, C) newest tokens.
        Returns:
            The tokens of the columns that stay, (B', C').
        """
        alive = self.alive
        kept_rows = np.flatnonzero(alive.any(axis=1))
        width = int(alive.sum(axis=1).max())
        if 2 * len(kept_rows) * width > alive.size:
            return tokens
        # living columns first; a row with fewer than the widest fills up with ended ones
        columns = np.argsort(~alive[kept_rows], axis=1, kind="stable")[:, :width]
        self._select(kept_rows, columns)
        self.slots = np.take_along_axis(self.slots[kept_rows], columns, axis=1)
        picked = torch.from_numpy(columns).to(tokens.device)
        return tokens[torch.from_numpy(kept_rows).to(tokens.device)].gather(1, picked)

    def _select(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        """Keep these rows (B',) and, of each, these columns (B', C')."""
        old = self.slots.shape[1]
        steps = self.num_prompt + np.arange(self.steps)[:, None] * old
        own = (steps[None] + columns[:, None, :]).reshape(len(rows), -1)
        prompt = np.broadcast_to(np.arange(self.num_prompt), (len(rows), self.num_prompt))
        index = torch.from_numpy(np.concatenate([prompt, own], axis=1)).to(self.valid.device)[:, None, :, None]
        kept = torch.from_numpy(rows).to(self.valid.device)
        for layer in self.cache.layers:
            for name in STATES:
                states = getattr(layer, name)[kept]
                wanted = index.expand(-1, states.shape[1], -1, states.shape[3])
                setattr(layer, name, states.gather(2, wanted))
        self.valid, self.positions = self.valid[kept], self.positions[kept]
