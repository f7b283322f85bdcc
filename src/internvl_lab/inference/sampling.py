"""Choose the next token of every row: greedy, or drawn from what temperature, top-k and top-p leave.

::

    logits (R, vocab) ─ repetition penalty ─ / temperature ─ softmax ─ top-k, top-p ─ inverse CDF at u ─> tokens (R,)

Every row draws its uniform numbers u from a generator of its own, seeded by (seed, prompt key, sample number): an
answer depends neither on its neighbours nor on the batch size nor on the device's generator.

Dimensions: R rows, K candidates a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from internvl_lab.config import SamplingConfig

CANDIDATES = 1024
"""Tokens that are sorted at first for top-p; rows that need more sort the whole vocabulary."""


def uniforms(seed: int, key: str, sample: int, count: int) -> NDArray[np.float64]:
    """Draw the numbers (count,) in [0, 1) that decide one answer; a longer series begins with the shorter one."""
    digest = hashlib.blake2b(f"{seed}/{key}/{sample}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little"))).random(count)


def choose(logits: Tensor, sampling: SamplingConfig, draws: Tensor) -> Tensor:
    """Choose one token a row.

    Args:
        logits: (R, vocab), penalised already.
        sampling: temperature and limits.
        draws: (R,) float64 in [0, 1); unused when greedy.
    Returns:
        (R,) int64.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    probabilities, tokens = _candidates(torch.softmax(logits.float() / sampling.temperature, dim=-1), sampling)
    # float64: over 150,000 tokens a running sum in fp32 is off by more than the rarest of them
    cumulative = probabilities.double().cumsum(dim=-1)
    target = draws.to(cumulative.device)[:, None] * cumulative[:, -1:]
    # right=True skips tokens of probability 0; the clamp is for a draw that rounding puts on the very end
    index = torch.searchsorted(cumulative, target, right=True).clamp_max(cumulative.shape[-1] - 1)
    return index[:, 0] if tokens is None else tokens.gather(1, index)[:, 0]


def _candidates(probabilities: Tensor, sampling: SamplingConfig) -> tuple[Tensor, Tensor | None]:
    """Set the probabilities of all tokens to 0 that top-k and top-p cut.

    Returns:
        (probabilities (R, K), their token ids (R, K), the likeliest first); ids are None where nothing is cut.
    """
    vocab = probabilities.shape[-1]
    if not sampling.top_k and sampling.top_p >= 1:
        return probabilities, None
    top, tokens = probabilities.topk(min(sampling.top_k or CANDIDATES, vocab), dim=-1)
    total = top.sum(dim=-1, keepdim=True) if sampling.top_k else torch.ones_like(top[:, :1])
    if sampling.top_p < 1:
        if not sampling.top_k and top.shape[-1] < vocab and bool((top.sum(dim=-1) < sampling.top_p).any()):
            top, tokens = probabilities.sort(dim=-1, descending=True)
        # a token stays while those before it do not reach top_p; so the first always stays
        before = top.cumsum(dim=-1) - top
        top = top.masked_fill(before >= sampling.top_p * total, 0.0)
    return top, tokens


class RepetitionPenalty:
    """Make tokens less likely that a row's prompt or answer holds already.

    Args:
        prompts: ids of each row's prompt.
        vocab_size: columns of the logits.
        penalty: 1 changes nothing.
    Source: Keskar et al. 2019 (CTRL), section 4.1, as in transformers: the prompt counts too.
    """

    def __init__(self, prompts: Sequence[NDArray[np.int32]], vocab_size: int, penalty: float) -> None:
        self.penalty = penalty
        self.seen = torch.zeros(len(prompts), vocab_size, dtype=torch.bool)
        for row, ids in enumerate(prompts):
            self.seen[row, torch.from_numpy(ids.astype(np.int64))] = True

    def __call__(self, logits: Tensor, slots: Tensor) -> Tensor:
        """Penalise logits (R, vocab) of the rows numbered `slots` (R,); returns the same shape."""
        seen = self.seen[slots].to(logits.device)
        return torch.where(seen, torch.where(logits > 0, logits / self.penalty, logits * self.penalty), logits)

    def add(self, slots: Tensor, tokens: Tensor) -> None:
        """Remember the newest tokens (R,) of the rows numbered `slots` (R,)."""
        self.seen[slots, tokens.cpu()] = True


class Picker:
    """Choose the tokens of a batch, step after step, each answer with its own draws.

    Args:
        sampling: how tokens are chosen; answer n is sample n % num_samples of prompt n // num_samples.
        prompts: (key, ids (T,)) of each prompt.
        limit: steps at most.
        vocab_size: columns of the logits.
    """

    def __init__(
        self, sampling: SamplingConfig, prompts: Sequence[tuple[str, NDArray[np.int32]]], limit: int, vocab_size: int
    ) -> None:
        self.sampling = sampling
        samples = range(sampling.num_samples)
        self.draws = torch.zeros(len(prompts) * len(samples), limit, dtype=torch.float64)
        if sampling.temperature > 0:
            drawn = [uniforms(sampling.seed, key, sample, limit) for key, _ in prompts for sample in samples]
            self.draws = torch.from_numpy(np.stack(drawn))
        self.penalty: RepetitionPenalty | None = None
        if sampling.repetition_penalty != 1:
            ids = [ids for _, ids in prompts for _ in samples]
            self.penalty = RepetitionPenalty(ids, vocab_size, sampling.repetition_penalty)

    def __call__(self, logits: Tensor, slots: NDArray[np.int64], step: int) -> tuple[Tensor, Tensor]:
        """Choose one token for each column of each row.

        Args:
            logits: (B, C, vocab).
            slots: (B, C) number of each column's answer; below 0 = none, what is chosen there does not matter.
            step: tokens chosen before.
        Returns:
            (tokens (B, C) int64, their log-probabilities (B, C) fp32 under the logits as they came).
        """
        flat = logits.flatten(0, 1)
        answers = torch.from_numpy(slots.clip(0).ravel())
        penalised = flat if self.penalty is None else self.penalty(flat, answers)
        tokens = choose(penalised, self.sampling, self.draws[answers, step])
        if self.penalty is not None:
            living = torch.from_numpy(slots.ravel() >= 0)
            self.penalty.add(answers[living], tokens[living.to(tokens.device)])
        logprobs = flat.gather(1, tokens[:, None])[:, 0].float() - flat.float().logsumexp(dim=-1)
        return tokens.view(slots.shape), logprobs.view(slots.shape)
