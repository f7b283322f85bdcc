"""The choice of tokens: transformers' filters, the frequencies of a draw, and draws that belong to one answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from internvl_lab.config import SamplingConfig
from internvl_lab.errors import ConfigError
from internvl_lab.inference import sampling as module
from internvl_lab.inference.sampling import Picker, RepetitionPenalty, choose, uniforms

VOCAB = 50


def reference(logits: torch.Tensor, sampling: SamplingConfig) -> torch.Tensor:
    """Let transformers cut the distribution (R, vocab)."""
    chain = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k:
        chain.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        chain.append(TopPLogitsWarper(sampling.top_p))
    return torch.softmax(chain(torch.zeros(len(logits), 1, dtype=torch.long), logits), dim=-1)


def frequencies(logits: torch.Tensor, sampling: SamplingConfig, count: int = 4000) -> torch.Tensor:
    """Draw at evenly spread u, so that frequencies are exact to 1 / count a token."""
    draws = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    rows = [choose(row.expand(count, -1), sampling, draws) for row in logits]
    return torch.stack([torch.bincount(tokens, minlength=VOCAB) / count for tokens in rows])


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.7, 0, 0.95), (0.7, 0, 0.3), (1.5, 5, 1.0), (0.5, 10, 0.8), (1.0, 1, 1.0), (1.0, 0, 1e-6)],
)
def test_distribution_equals_transformers(temperature: float, top_k: int, top_p: float) -> None:
    logits = torch.randn(4, VOCAB) * 3
    sampling = SamplingConfig(temperature, top_p, top_k)
    expected = reference(logits, sampling)
    found = frequencies(logits, sampling)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert (found[expected > 1e-3] > 0).all()
    assert not (found[expected == 0] > 0).any()


def test_a_flat_distribution_sorts_the_whole_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CANDIDATES", 4)
    logits = torch.randn(3, VOCAB) * 0.1
    sampling = SamplingConfig(1.0, 0.9)
    torch.testing.assert_close(frequencies(logits, sampling), reference(logits, sampling), atol=1e-3, rtol=0)


def test_temperature_zero_is_greedy() -> None:
    logits = torch.randn(6, VOCAB)
    assert torch.equal(choose(logits, SamplingConfig(), torch.rand(6, dtype=torch.float64)), logits.argmax(-1))


def test_extreme_draws_stay_inside_what_is_kept() -> None:
    logits = torch.tensor([[0.0, 5.0, 4.0, -torch.inf]]).expand(2, -1)
    draws = torch.tensor([0.0, np.nextafter(1.0, 0.0)], dtype=torch.float64)
    assert choose(logits, SamplingConfig(1.0), draws).tolist() == [0, 2]
    assert choose(logits, SamplingConfig(1.0, 0.99), draws).tolist() == [1, 2]


def test_repetition_penalty_equals_transformers() -> None:
    prompt = np.array([3, 7, 7, 9], np.int32)
    penalty = RepetitionPenalty([prompt, prompt], VOCAB, 1.3)
    penalty.add(torch.tensor([1]), torch.tensor([20]))
    logits = torch.randn(2, VOCAB)
    ids = torch.tensor([[3, 7, 7, 9, 9], [3, 7, 7, 9, 20]])
    expected = RepetitionPenaltyLogitsProcessor(1.3)(ids, logits)
    torch.testing.assert_close(penalty(logits, torch.tensor([0, 1])), expected)


def test_draws_belong_to_the_answer() -> None:
    series = uniforms(1, "a", 0, 8)
    assert series.tolist() == uniforms(1, "a", 0, 20)[:8].tolist()
    others = [uniforms(2, "a", 0, 8), uniforms(1, "b", 0, 8), uniforms(1, "a", 1, 8)]
    assert all(series.tolist() != other.tolist() for other in others)


def test_picker_reports_the_models_own_logprobs() -> None:
    logits = torch.randn(1, 2, VOCAB) * 2
    sampling = SamplingConfig(0.7, 0.5, repetition_penalty=1.5, num_samples=2)
    picker = Picker(sampling, [("k", np.array([1], np.int32))], 3, VOCAB)
    tokens, logprobs = picker(logits, np.array([[0, 1]]), 0)
    torch.testing.assert_close(logprobs, torch.log_softmax(logits, -1).gather(2, tokens[..., None])[..., 0])


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.1}, {"num_samples": 0}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        SamplingConfig(**wrong)  # type: ignore[arg-type]
