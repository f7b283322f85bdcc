"""Batched decoding, greedy or sampled, with a key-value cache.

::

    prompts ─ sort by length ─ batches of B
      tiles of the batch (N,3,H,W) ─ encode_tiles ─> (N,V,D)          one vision call a batch
      ids of the batch, end to end (1,ΣT) ─ embed ─> (1,ΣT,D)
      prefill as one pack, as in training ─> cache, logits (B,vocab)  one a prompt, however many answers it gets
      Rows: C answers share the cache of their prompt ─ choose ─> one step a token ─ ... ─ <|im_end|>

The prefill has no padding and no mask of T x T; only its cache is laid out with left padding, because the newest token
of every row then has the same column. In a decode step the mask is ours, 4D and boolean, because transformers would
otherwise guess one from the positions; it passes through `create_causal_mask` untouched.

Dimensions: B rows, C answers of a row, T tokens of a prompt, K cached tokens, N tiles, V visual tokens a tile, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from internvl_lab.config import SamplingConfig
from internvl_lab.constants import IMAGENET_MEAN
from internvl_lab.errors import ConfigError, TokenMismatchError
from internvl_lab.inference.rows import ENDED, Rows
from internvl_lab.inference.sampling import Picker
from internvl_lab.models.internvl import InternVL
from internvl_lab.text.template import ChatTemplate, Turn

GREEDY = SamplingConfig()
MAX_COLUMNS = 16
"""Most answers that share a row: each column also computes, masked, scores over its neighbours' tokens."""


@dataclass(frozen=True)
class Prompt:
    """Hold one question ready for the model."""

    key: str
    """Name for error messages, and a seed of the draws."""
    input_ids: NDArray[np.int32]
    """(T,) token ids up to and including the header of the assistant's turn."""
    pixel_values: NDArray[np.uint8]
    """(N, 3, H, W) tiles in placeholder order; N = 0 for text alone."""

    @property
    def num_tiles(self) -> int:
        """Count the tiles N."""
        return int(self.pixel_values.shape[0])


@dataclass(frozen=True)
class Answer:
    """Hold one answer with what re-ranking needs."""

    text: str
    token_ids: tuple[int, ...]
    """Without the end token."""
    logprobs: tuple[float, ...]
    """Log-probability of each token under the model itself (temperature 1, nothing cut), the end token's included."""
    ended: bool
    """Whether the model ended the answer; else it was cut at `max_new_tokens`."""

    @property
    def mean_logprob(self) -> float:
        """Average the log-probabilities over tokens."""
        return math.fsum(self.logprobs) / len(self.logprobs)


@dataclass(frozen=True)
class _Step:
    """Hold the newest tokens of all rows and columns."""

    slots: NDArray[np.int64]
    """(B, C) number of each column's answer, or ENDED."""
    tokens: NDArray[np.int64]
    """(B, C)."""
    logprobs: NDArray[np.float32]
    """(B, C)."""


class Generator:
    """Answer prompts in batches; an answer does not depend on the batch (fp32).

    Args:
        model: any InternVL; its device and dtype are used as they are.
        template: gives the end token and decodes answers.
        max_new_tokens: an answer is cut after so many tokens, the end token counted.
        batch_size: answers decoded side by side.
    Raises:
        ConfigError: a limit below 1.
    """

    def __init__(self, model: InternVL, template: ChatTemplate, max_new_tokens: int = 64, batch_size: int = 64) -> None:
        if max_new_tokens < 1 or batch_size < 1:
            raise ConfigError(f"max_new_tokens={max_new_tokens} and batch_size={batch_size} must be at least 1")
        self.model, self.template = model, template
        self.max_new_tokens, self.batch_size = max_new_tokens, batch_size

    def generate(self, prompts: Sequence[Prompt], blind: bool = False) -> list[str]:
        """Answer every prompt greedily.

        Args:
            prompts: any mixture of text, image, multi-image and video prompts.
            blind: replace every tile by a mid-grey one (ImageNet mean), so that the features carry nothing.
        Returns:
            Decoded answers in the order of `prompts`, without the end token.
        Raises:
            TokenMismatchError: a prompt whose `<IMG_CONTEXT>` ids do not match its tiles; names its key.
        """
        return [answers[0].text for answers in self.sample(prompts, GREEDY, blind)]

    def sample(
        self, prompts: Sequence[Prompt], sampling: SamplingConfig = GREEDY, blind: bool = False
    ) -> list[tuple[Answer, ...]]:
        """Answer every prompt `sampling.num_samples` times, over one vision pass and one prefill of it.

        Args:
            prompts, blind: as in `generate`; the keys of the prompts enter the draws.
            sampling: how tokens are chosen.
        Returns:
            The answers to each prompt, in the order of `prompts`.
        Raises:
            TokenMismatchError: as in `generate`.
        """
        for prompt in prompts:
            self._check(prompt)
        answers: list[tuple[Answer, ...]] = [()] * len(prompts)
        with _evaluating(self.model):
            for batch in self._batches(prompts, sampling.num_samples):
                found = self._answer_batch([prompts[i] for i in batch], sampling, blind)
                for i, one in zip(batch, found, strict=True):
                    answers[i] = one
        return answers

    def stream(self, prompt: Prompt, sampling: SamplingConfig = GREEDY) -> Iterator[str]:
        """Yield one answer to one prompt piece by piece; joined, the pieces are the first text that `sample` gives.

        Raises:
            TokenMismatchError: as in `generate`.
        """
        self._check(prompt)
        ids: list[int] = []
        shown = 0
        with _evaluating(self.model):
            for step in self._decode([prompt], replace(sampling, num_samples=1), False):
                ids += [int(token) for token in step.tokens[0] if token != self.template.end_id]
                text = self.template.decode(ids)
                # the bytes of one character may lie in several tokens; what is cut decodes as U+FFFD
                whole = len(text.rstrip("\ufffd"))
                if whole > shown:
                    yield text[shown:whole]
                    shown = whole
        if len(rest := self.template.decode(ids)) > shown:
            yield rest[shown:]

    @torch.inference_mode()
    def score(self, prompt: Prompt, answers: Sequence[str], mean: bool = True) -> list[float]:
        """Return the log-probability that the model gives to each answer, the end token included.

        Args:
            prompt: what is answered.
            answers: texts.
            mean: average over the tokens of an answer; else the sum.
        Raises:
            TokenMismatchError: as in `generate`.
            SampleError: an answer that holds a token of the template's own.
        """
        self._check(prompt)
        with _evaluating(self.model):
            visual = self._visual([prompt], False)
            logprobs = [self._logprobs(prompt, visual, self._answer_ids(answer)) for answer in answers]
        return [float(of.mean() if mean else of.sum()) for of in logprobs]

    def _answer_ids(self, answer: str) -> NDArray[np.int32]:
        """Encode an answer as in training: its ids and the end token's."""
        labels = self.template.encode([Turn("human", ""), Turn("gpt", answer)], []).labels
        return labels[labels >= 0]

    def _logprobs(self, prompt: Prompt, visual: Tensor | None, ids: NDArray[np.int32]) -> Tensor:
        """Return the log-probabilities (A,) float64 of the answer's ids (A,) behind the prompt."""
        joined = np.concatenate([prompt.input_ids, ids]).astype(np.int64)
        row = torch.from_numpy(joined).to(self.model.device)
        embeds = self.model.embed(row[None], visual)
        hidden = self._language(embeds, [len(joined)], None)
        logits = self.model.lm_head(hidden[0, -len(ids) - 1 : -1]).float()
        return torch.log_softmax(logits, dim=-1).gather(1, row[-len(ids) :, None])[:, 0].double()

    def _batches(self, prompts: Sequence[Prompt], num_samples: int) -> Iterator[list[int]]:
        """Group prompts of like length, the longest first so that a lack of memory shows at once."""
        size = max(1, self.batch_size // num_samples)
        order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i].input_ids), i))
        return (order[i : i + size] for i in range(0, len(order), size))

    def _check(self, prompt: Prompt) -> None:
        """Refuse a prompt by name, before `embed` could only speak of the whole batch."""
        found = int((prompt.input_ids == self.model.image_token_id).sum())
        wanted = prompt.num_tiles * self.model.config.num_visual_tokens
        if found != wanted:
            raise TokenMismatchError(
                f"prompt {prompt.key}: {found} visual tokens in the text, but {prompt.num_tiles} tiles give {wanted}"
            )

    def _answer_batch(
        self, prompts: list[Prompt], sampling: SamplingConfig, blind: bool
    ) -> Iterator[tuple[Answer, ...]]:
        """Decode one batch and sort the tokens by answer; yields the answers of each prompt."""
        count = sampling.num_samples
        ids: list[list[int]] = [[] for _ in range(len(prompts) * count)]
        logprobs: list[list[float]] = [[] for _ in ids]
        for step in self._decode(prompts, sampling, blind):
            living = step.slots != ENDED
            found = zip(step.slots[living], step.tokens[living], step.logprobs[living], strict=True)
            for slot, token, logprob in found:
                ids[slot].append(int(token))
                logprobs[slot].append(float(logprob))
        answers = [self._finish(*pair) for pair in zip(ids, logprobs, strict=True)]
        return (tuple(answers[i : i + count]) for i in range(0, len(answers), count))

    def _finish(self, ids: list[int], logprobs: list[float]) -> Answer:
        """Make an answer of all its tokens."""
        ended = ids[-1] == self.template.end_id
        kept = tuple(ids[:-1] if ended else ids)
        return Answer(self.template.decode(kept), kept, tuple(logprobs), ended)

    @torch.inference_mode()
    def _decode(self, prompts: list[Prompt], sampling: SamplingConfig, blind: bool) -> Iterator[_Step]:
        """Decode one batch; yields the newest tokens until all answers have ended or are cut.

        Slot n is sample n % num_samples of prompt n // num_samples.
        """
        logits, rows = self._prefill(prompts, sampling.num_samples, blind)
        picker = Picker(sampling, [(p.key, p.input_ids) for p in prompts], self.max_new_tokens, logits.shape[-1])
        for step in range(self.max_new_tokens):
            tokens, logprobs = picker(logits, rows.slots, step)
            ids = tokens.cpu().numpy()
            yield _Step(rows.slots, ids, logprobs.cpu().numpy())
            rows.slots = np.where(ids == self.template.end_id, ENDED, rows.slots)
            if step + 1 == self.max_new_tokens or not rows.alive.any():
                return
            tokens = rows.shrink(tokens)
            logits = self._step(tokens, rows)

    def _prefill(self, prompts: list[Prompt], num_samples: int, blind: bool) -> tuple[Tensor, Rows]:
        """Run all prompts through the model once, as one pack.

        Returns:
            (logits of each row's last token, for each of its columns (B, C, vocab), the rows to go on with).
        """
        lengths = [len(p.input_ids) for p in prompts]
        ids = np.concatenate([p.input_ids for p in prompts]).astype(np.int64)
        visual = self._visual(prompts, blind)
        embeds = self.model.embed(torch.from_numpy(ids).to(self.model.device)[None], visual)
        cache = DynamicCache()
        hidden = self._language(embeds, lengths, cache)
        owners, slots = _assign(len(prompts), num_samples)
        rows = Rows(cache, lengths, owners, slots)
        last = torch.tensor(lengths).cumsum(0)[owners] - 1
        logits = self.model.lm_head(hidden[0, last.to(hidden.device)])
        return logits[:, None].expand(-1, slots.shape[1], -1), rows

    def _language(self, embeds: Tensor, lengths: list[int], cache: DynamicCache | None) -> Tensor:
        """Run the language model over a pack (1, ΣT, D), filling the cache; returns (1, ΣT, D)."""
        boundaries = torch.tensor([0, *lengths], device=embeds.device).cumsum(0).to(torch.int32)
        positions = torch.cat([torch.arange(length, device=embeds.device) for length in lengths])
        output = self.model.language_model(
            inputs_embeds=embeds,
            position_ids=positions[None],
            past_key_values=cache,
            use_cache=cache is not None,
            **self.model.backend.lay_out(boundaries, max(lengths)),
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _step(self, tokens: Tensor, rows: Rows) -> Tensor:
        """Feed one token a column (B, C) and return the next logits (B, C, vocab)."""
        output = self.model.language_model(
            inputs_embeds=self.model.language_model.get_input_embeddings()(tokens),
            attention_mask=rows.mask(),
            position_ids=rows.positions.expand(tokens.shape),
            past_key_values=rows.cache,
            use_cache=True,
        )
        rows.advance()
        logits: Tensor = self.model.lm_head(output.last_hidden_state)
        return logits

    def _visual(self, prompts: list[Prompt], blind: bool) -> Tensor | None:
        """Encode all tiles of the batch in one call; (N, V, D), or None when there is none."""
        tiles = [p.pixel_values for p in prompts if p.num_tiles]
        if not tiles:
            return None
        device = self.model.device
        if blind:
            grey = torch.from_numpy(grey_tile(tiles[0].shape[-1])).to(device)
            return self.model.encode_tiles(grey).expand(sum(len(t) for t in tiles), -1, -1)
        return self.model.encode_tiles(torch.from_numpy(np.concatenate(tiles)).to(device))


def _assign(num_prompts: int, num_samples: int) -> tuple[list[int], NDArray[np.int64]]:
    """Spread the answers over rows of at most MAX_COLUMNS: (prompt of each row, slots (B, C))."""
    rows_each = math.ceil(num_samples / MAX_COLUMNS)
    width = math.ceil(num_samples / rows_each)
    samples = np.arange(rows_each * width)
    slots = np.where(samples < num_samples, samples + num_samples * np.arange(num_prompts)[:, None], ENDED)
    owners = [prompt for prompt in range(num_prompts) for _ in range(rows_each)]
    return owners, slots.reshape(-1, width)


@contextmanager
def _evaluating(model: InternVL) -> Iterator[None]:
    """Switch to eval mode inside, and back outside."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def grey_tile(tile_size: int) -> NDArray[np.uint8]:
    """Return one tile (1, 3, tile_size, tile_size) uint8 of ImageNet's mean colour, which normalises to about 0."""
    colour = np.array([round(255 * mean) for mean in IMAGENET_MEAN], dtype=np.uint8)
    return np.broadcast_to(colour[None, :, None, None], (1, 3, tile_size, tile_size)).copy()
