"""Batched greedy decoding with a key-value cache.

::

    prompts ─ sort by length ─ batches of B
      tiles of the batch (N,3,H,W) ─ encode_tiles ─> (N,V,D)          one vision call a batch
      ids of the batch, end to end (1,ΣT) ─ embed ─> rows, left-padded (B,T,D)
      prefill ─> cache, logits (B,vocab) ─ argmax ─> one step a token ─ ... ─ <|im_end|>

Left padding keeps the newest token of every row in the last column, so a decode step needs no
gather. The mask is ours, 4D and boolean, because transformers would otherwise guess one from the
positions; it passes through `create_causal_mask` untouched. Rows that have ended stay in the batch until
fewer than half are left: a selection copies the whole cache, so it must halve the work to pay.

Dimensions: B rows, T tokens of the longest prompt, K cached tokens, N tiles, V visual tokens a tile, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from internvl_lab.constants import IMAGENET_MEAN
from internvl_lab.errors import ConfigError, TokenMismatchError
from internvl_lab.models.internvl import InternVL
from internvl_lab.text.template import ChatTemplate


@dataclass(frozen=True)
class Prompt:
    """Hold one question ready for the model."""

    key: str
    """Name for error messages."""
    input_ids: NDArray[np.int32]
    """(T,) token ids up to and including the header of the assistant's turn."""
    pixel_values: NDArray[np.uint8]
    """(N, 3, H, W) tiles in placeholder order; N = 0 for text alone."""

    @property
    def num_tiles(self) -> int:
        """Count the tiles N."""
        return int(self.pixel_values.shape[0])


@dataclass
class _Rows:
    """State of the rows that are still decoded."""

    cache: DynamicCache
    mask: Tensor
    """(B, 1, 1, K) bool; False on left padding."""
    positions: Tensor
    """(B, 1) int64, position of the token to be fed next."""
    owners: list[int]
    """Position in the batch of each row."""

    def keep(self, rows: list[int]) -> None:
        """Drop all rows but these from cache, mask and positions."""
        index = torch.tensor(rows, device=self.mask.device)
        self.cache.batch_select_indices(index)
        self.mask, self.positions = self.mask[index], self.positions[index]
        self.owners = [self.owners[row] for row in rows]

    def advance(self) -> None:
        """Make room in the mask for one more cached token a row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(self.mask.shape[0], 1, 1, 1)], dim=-1)


class Generator:
    """Answer prompts greedily, in batches; the answer does not depend on the batch (fp32).

    Args:
        model: any InternVL; its device and dtype are used as they are.
        template: gives the end token and decodes answers.
        max_new_tokens: an answer is cut after so many tokens, the end token counted.
        batch_size: prompts decoded side by side.
    Raises:
        ConfigError: a limit below 1.
    """

    def __init__(self, model: InternVL, template: ChatTemplate, max_new_tokens: int = 64, batch_size: int = 64) -> None:
        if max_new_tokens < 1 or batch_size < 1:
            raise ConfigError(f"max_new_tokens={max_new_tokens} and batch_size={batch_size} must be at least 1")
        self.model, self.template = model, template
        self.max_new_tokens, self.batch_size = max_new_tokens, batch_size

    def generate(self, prompts: Sequence[Prompt], blind: bool = False) -> list[str]:
        """Answer every prompt.

        Args:
            prompts: any mixture of text, image, multi-image and video prompts.
            blind: replace every tile by a mid-grey one (ImageNet mean), so that the features carry nothing.
        Returns:
            Decoded answers in the order of `prompts`, without the end token.
        Raises:
            TokenMismatchError: a prompt whose `<IMG_CONTEXT>` ids do not match its tiles; names its key.
        """
        for prompt in prompts:
            self._check(prompt)
        answers = [""] * len(prompts)
        training = self.model.training
        self.model.eval()
        try:
            for batch in self._batches(prompts):
                tokens = self._decode([prompts[i] for i in batch], blind)
                for i, ids in zip(batch, tokens, strict=True):
                    answers[i] = self.template.decode(ids)
        finally:
            self.model.train(training)
        return answers

    def _batches(self, prompts: Sequence[Prompt]) -> Iterator[list[int]]:
        """Group prompts of like length, the longest first so that a lack of memory shows at once."""
        order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i].input_ids), i))
        return (order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size))

    def _check(self, prompt: Prompt) -> None:
        """Refuse a prompt by name, before `embed` could only speak of the whole batch."""
        found = int((prompt.input_ids == self.model.image_token_id).sum())
        wanted = prompt.num_tiles * self.model.config.num_visual_tokens
        if found != wanted:
            raise TokenMismatchError(
                f"prompt {prompt.key}: {found} visual tokens in the text, but {prompt.num_tiles} tiles give {wanted}"
            )

    @torch.inference_mode()
    def _decode(self, prompts: list[Prompt], blind: bool) -> list[list[int]]:
        """Decode one batch; returns the new token ids of each prompt, without the end token."""
        logits, rows = self._prefill(prompts, blind)
        answers: list[list[int]] = [[] for _ in prompts]
        ended = [False] * len(prompts)
        for step in range(self.max_new_tokens):
            tokens = logits.argmax(dim=-1)
            for owner, token in zip(rows.owners, tokens.tolist(), strict=True):
                if token == self.template.end_id:
                    ended[owner] = True
                elif not ended[owner]:
                    answers[owner].append(token)
            alive = [row for row, owner in enumerate(rows.owners) if not ended[owner]]
            if not alive or step + 1 == self.max_new_tokens:
                break
            if 2 * len(alive) <= len(rows.owners):
                tokens = tokens[alive]
                rows.keep(alive)
            logits = self._step(tokens, rows)
        return answers

    def _prefill(self, prompts: list[Prompt], blind: bool) -> tuple[Tensor, _Rows]:
        """Run all prompts through the model once.

        Returns:
            (logits of the last token (B, vocab), the rows to go on with).
        """
        embeds, valid = self._embed(prompts, blind)
        positions = (valid.cumsum(dim=1) - 1).clamp_min(0)
        length = valid.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=valid.device).tril()
        # A padding row attends to itself: a softmax over nothing is NaN, and 0 x NaN reaches the real rows.
        itself = torch.eye(length, dtype=torch.bool, device=valid.device)
        mask = (valid[:, None, None, :] & causal) | itself
        cache = DynamicCache()
        hidden = self._language(embeds, mask, positions, cache)
        rows = _Rows(cache, valid[:, None, None, :], positions[:, -1:] + 1, list(range(len(prompts))))
        return self.model.lm_head(hidden[:, -1]), rows

    def _step(self, tokens: Tensor, rows: _Rows) -> Tensor:
        """Feed one token a row (B,) and return the next logits (B, vocab)."""
        rows.advance()
        embeds = self.model.language_model.get_input_embeddings()(tokens[:, None])
        hidden = self._language(embeds, rows.mask, rows.positions, rows.cache)
        rows.positions = rows.positions + 1
        logits: Tensor = self.model.lm_head(hidden[:, -1])
        return logits

    def _language(self, embeds: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        """Run the language model on (B, q, D) with a 4D mask, growing the cache; returns (B, q, D)."""
        output = self.model.language_model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _embed(self, prompts: list[Prompt], blind: bool) -> tuple[Tensor, Tensor]:
        """Embed the prompts end to end, then lay them out with left padding.

        Returns:
            (embeddings (B, T, D) with zeros on padding, valid (B, T) bool).
        """
        device = self.model.lm_head.weight.device
        lengths = [len(p.input_ids) for p in prompts]
        ids = torch.from_numpy(np.concatenate([p.input_ids for p in prompts]).astype(np.int64)).to(device)
        flat = self.model.embed(ids[None], self._visual(prompts, blind, device))[0]
        longest = max(lengths)
        columns = torch.arange(longest, device=device)
        valid = columns[None, :] >= longest - torch.tensor(lengths, device=device)[:, None]
        embeds = flat.new_zeros(len(prompts), longest, flat.shape[-1])
        embeds[valid] = flat
        return embeds, valid

    def _visual(self, prompts: list[Prompt], blind: bool, device: torch.device) -> Tensor | None:
        """Encode all tiles of the batch in one call; (N, V, D), or None when there is none."""
        tiles = [p.pixel_values for p in prompts if p.num_tiles]
        if not tiles:
            return None
        if blind:
            grey = torch.from_numpy(grey_tile(tiles[0].shape[-1])).to(device)
            return self.model.encode_tiles(grey).expand(sum(len(t) for t in tiles), -1, -1)
        return self.model.encode_tiles(torch.from_numpy(np.concatenate(tiles)).to(device))


def grey_tile(tile_size: int) -> NDArray[np.uint8]:
    """Return one tile (1, 3, tile_size, tile_size) uint8 of ImageNet's mean colour, which normalises to about 0."""
    colour = np.array([round(255 * mean) for mean in IMAGENET_MEAN], dtype=np.uint8)
    return np.broadcast_to(colour[None, :, None, None], (1, 3, tile_size, tile_size)).copy()
