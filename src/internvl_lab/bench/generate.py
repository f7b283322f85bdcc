"""Several answers to one prompt: ours against transformers' `generate(num_return_sequences=N)`, and against one answer.

| variant  | what                                                                                               |
|----------|----------------------------------------------------------------------------------------------------|
| `ours`   | N answers over one vision pass, one prefill and one copy of the prompt's cache                     |
| `one`    | ours with N = 1                                                                                    |
| `hf`     | transformers' model with the same weights, `num_return_sequences=N`: it repeats tiles and prompt   |
| `hf_one` | the same with one answer                                                                           |

All draw with the same temperature and top-p, and none may end early, so all make the same number of tokens. Before
anything is measured, both sides answer greedily and must agree in every token. Ratios are ours over the peer's CPU
time, below 1 = ours is cheaper; `one` says how much N answers cost in units of a single one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from internvl_lab.bench.peers import build_peer
from internvl_lab.bench.report import Report
from internvl_lab.bench.samples import WORKLOADS, Workload
from internvl_lab.bench.timing import Reading, describe_device, interleave, median_peak_mib, one_thread, spread
from internvl_lab.config import SamplingConfig
from internvl_lab.constants import IMAGENET_MEAN, IMAGENET_STD
from internvl_lab.errors import ConfigError, InternVLLabError
from internvl_lab.inference import Generator, Prompt
from internvl_lab.models import InternVL
from internvl_lab.text import ChatTemplate

_HEAD_STD = 0.5
"""Of the head's random weights: with 0.02 all logits are alike, and rounding would decide the greedy answer."""


@dataclass(frozen=True)
class GenerateSetting:
    """Describe the prompt and the answers."""

    size: str = "small"
    """A workload of `bench.samples`, for its model."""
    samples: int = 8
    prompt_tokens: int = 1000
    tiles: int = 13
    """Twelve tiles and the thumbnail; their visual tokens are part of the prompt's."""
    new_tokens: int = 32
    dtype: str = "float32"
    temperature: float = 0.7
    top_p: float = 0.95

    def __post_init__(self) -> None:
        """Refuse what leaves nothing to measure."""
        if self.size not in WORKLOADS:
            raise ConfigError(f"size={self.size!r} must be one of {', '.join(WORKLOADS)}")
        if min(self.samples, self.new_tokens) < 1 or self.tiles < 0:
            raise ConfigError("samples and new tokens must be at least 1, tiles at least 0")
        if self.prompt_tokens <= self.tiles * self.workload.model.num_visual_tokens:
            raise ConfigError(f"a prompt of {self.prompt_tokens} tokens has no room for {self.tiles} tiles and text")

    @property
    def workload(self) -> Workload:
        """Return the model to measure."""
        return WORKLOADS[self.size].with_dtype(self.dtype)


class _Endless:
    """Stand in for the template: no token ends an answer, and nobody reads the text."""

    end_id = -1

    def decode(self, ids: Sequence[int]) -> str:
        """Return nothing."""
        return ""


def bench_generate(setting: GenerateSetting, repeats: int = 3, seed: int = 0) -> Report:
    """Measure all variants `repeats` times, in turns.

    Raises:
        ConfigError: impossible sizes.
        InternVLLabError: the greedy answers differ, so that there is nothing to compare.
    """
    with one_thread():
        runs = build_runs(setting, seed)
        device = describe_device()
        readings = interleave(runs, repeats)
    figures = {name: _figures(of) for name, of in readings.items()}
    ours = figures.pop("ours")
    ratios = {name: ours["cpu_s"]["median"] / values["cpu_s"]["median"] for name, values in figures.items()}
    return Report(device, ours, figures, ratios, asdict(setting) | {"repeats": repeats, "seed": seed})


def build_runs(setting: GenerateSetting, seed: int = 0) -> dict[str, Callable[[], float]]:
    """Build all variants over the same weights and prompt; each returns the number of tokens it made.

    Raises:
        InternVLLabError: ours and transformers' greedy answers differ.
    """
    model, prompt = _build_model(setting, seed), _draw_prompt(setting, seed)
    peer, inputs = build_peer(model).eval(), _peer_inputs(prompt, model.dtype)
    generator = Generator(model, cast(ChatTemplate, _Endless()), setting.new_tokens)
    sampled = SamplingConfig(setting.temperature, setting.top_p, num_samples=setting.samples, seed=seed)
    greedy = list(generator.sample([prompt])[0][0].token_ids)
    theirs = _peer_generate(peer, inputs, setting, do_sample=False)[0].tolist()
    if greedy != theirs:
        raise InternVLLabError(f"greedy answers differ, nothing to compare: ours {greedy}, transformers' {theirs}")

    def ours(sampling: SamplingConfig) -> float:
        """Draw our answers."""
        return float(sum(len(answer.token_ids) for answer in generator.sample([prompt], sampling)[0]))

    def hf(count: int) -> float:
        """Draw transformers' answers."""
        limits = {"temperature": setting.temperature, "top_p": setting.top_p, "top_k": 0}
        ids = _peer_generate(peer, inputs, setting, do_sample=True, num_return_sequences=count, **limits)
        return float(ids.numel())

    return {
        "ours": lambda: ours(sampled),
        "one": lambda: ours(replace(sampled, num_samples=1)),
        "hf": lambda: hf(setting.samples),
        "hf_one": lambda: hf(1),
    }


def _build_model(setting: GenerateSetting, seed: int) -> InternVL:
    workload = setting.workload
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = InternVL(workload.model, workload.image_token_id).eval()
        nn.init.normal_(model.lm_head.weight, 0.0, _HEAD_STD)
    return model


def _draw_prompt(setting: GenerateSetting, seed: int) -> Prompt:
    """Draw random tiles and text: a few tokens, the visual tokens, the rest."""
    workload, rng = setting.workload, np.random.default_rng(seed)
    visual = setting.tiles * workload.model.num_visual_tokens
    text = rng.integers(0, workload.num_plain_ids, setting.prompt_tokens - visual)
    before = min(4, len(text))
    ids = np.concatenate([text[:before], np.full(visual, workload.image_token_id), text[before:]])
    edge = workload.model.vision.image_size
    tiles = rng.integers(0, 256, (setting.tiles, 3, edge, edge), dtype=np.uint8)
    return Prompt("bench", ids.astype(np.int32), tiles)


def _peer_inputs(prompt: Prompt, dtype: torch.dtype) -> dict[str, Tensor]:
    """Prepare transformers' inputs outside the measured time: ids and mask (1, T), normalised tiles (N, 3, H, W)."""
    ids = torch.from_numpy(prompt.input_ids.astype(np.int64))[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if not prompt.num_tiles:
        return inputs
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = torch.from_numpy(prompt.pixel_values).float().div_(255).sub_(mean).div_(std)
    return inputs | {"pixel_values": pixels.to(dtype)}


def _peer_generate(peer: Any, inputs: dict[str, Tensor], setting: GenerateSetting, **options: Any) -> Tensor:
    """Let transformers generate; returns the new tokens (answers, new_tokens)."""
    limits = {"min_new_tokens": setting.new_tokens, "max_new_tokens": setting.new_tokens, "use_cache": True}
    ids: Tensor = peer.generate(**inputs, **limits, eos_token_id=None, pad_token_id=0, **options)
    return ids[:, -setting.new_tokens :]


def _figures(readings: list[Reading]) -> dict[str, Any]:
    tokens = readings[0].value
    return {
        "cpu_s": spread([reading.time_s for reading in readings]),
        "cpu_ms_per_token": spread([1000 * reading.time_s / tokens for reading in readings]),
        "extra_peak_mib": median_peak_mib(readings),
        "tokens": tokens,
    }
