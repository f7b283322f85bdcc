"""One training step, ours against peers: forward, backward, clipping and AdamW over the same samples.

| variant         | what                                                                                          |
|-----------------|-----------------------------------------------------------------------------------------------|
| `ours`          | packs, one SDPA a sample, logits on supervised rows only                                      |
| `padded`        | transformers' model and loss on padded batches in arrival order: what its Trainer runs        |
| `length_sorted` | the same, batches of like length (`group_by_length`, with the whole set as one group)         |
| `hf_packed`     | our packs in transformers' own packed forward (the mask it builds itself), logits everywhere  |
| `recipe`        | the same with gradient checkpointing in all layers: the shape of the authors' recipe          |

All start from the same weights and keep them: the learning rate is 0, which costs AdamW the same, so the losses of the
measured passes themselves show that all variants compute the same thing. Speed is counted in real tokens (no padding)
per second of CPU time; ratios are ours over the peer's, above 1 = ours is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from internvl_lab.bench import peers
from internvl_lab.bench.report import Report, check_same_loss
from internvl_lab.bench.samples import Workload, draw_samples, pack_samples
from internvl_lab.bench.timing import Reading, describe_device, interleave, median_peak_mib, one_thread, spread
from internvl_lab.data.batch import Batch
from internvl_lab.data.encoding import Sample
from internvl_lab.data.loader import collate
from internvl_lab.models import InternVL

LOSS_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
"""Largest difference of two variants' mean loss (about 10): fp32 variants differ by 2e-6, bf16 rounds hidden states."""

_MAX_GRAD_NORM = 1.0


@dataclass
class Step:
    """Hold one optimizer step: micro-batches whose gradients accumulate, each as a function of its loss."""

    losses: list[Callable[[], Tensor]]
    """Each gives () its sum of cross-entropies over `num_targets`."""
    num_targets: int
    """Supervised tokens of the step."""


@dataclass
class Variant:
    """Hold one way to train on all samples once."""

    model: nn.Module
    optimizer: AdamW
    steps: list[Step]
    padding: float = 0.0
    """Share of padding in the computed tokens."""

    def warm_up(self) -> None:
        """Run one step, which allocates AdamW's moments and fills caches."""
        self._run(self.steps[:1])

    def run_pass(self) -> float:
        """Train on all samples once and return the mean loss over all supervised tokens."""
        return self._run(self.steps)

    def _run(self, steps: Sequence[Step]) -> float:
        total = 0.0
        for step in steps:
            for loss_of in step.losses:
                loss = loss_of()
                loss.backward()
                total += float(loss.detach()) * step.num_targets
            nn.utils.clip_grad_norm_(self.model.parameters(), _MAX_GRAD_NORM)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return total / sum(step.num_targets for step in steps)


def bench_step(workload: Workload, repeats: int = 3, seed: int = 0) -> Report:
    """Measure one pass over the samples with every variant, `repeats` times.

    Args:
        workload: model and samples.
        repeats: readings of each variant; medians and extremes are reported.
        seed: of weights, samples and packs.
    Raises:
        InternVLLabError: the variants' losses differ, so that there is nothing to compare.
    """
    with one_thread():
        samples = draw_samples(workload, seed)
        variants = build_variants(workload, samples, seed)
        for variant in variants.values():
            variant.warm_up()
        device = describe_device()
        readings = interleave({name: variant.run_pass for name, variant in variants.items()}, repeats)
    check_same_loss({name: runs[0].value for name, runs in readings.items()}, LOSS_TOLERANCE[workload.model.dtype])
    num_tokens = sum(len(sample.input_ids) for sample in samples)
    figures = {name: _figures(variants[name], runs, num_tokens) for name, runs in readings.items()}
    ours = figures.pop("ours")
    speed = ours["tokens_per_cpu_s"]["median"]
    ratios = {name: speed / values["tokens_per_cpu_s"]["median"] for name, values in figures.items()}
    return Report(device, ours, figures, ratios, _setting(workload, samples, repeats, seed))


def build_variants(workload: Workload, samples: list[Sample], seed: int = 0) -> dict[str, Variant]:
    """Build all variants over the same samples, `ours` first; peers share a model, but for the one that recomputes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = InternVL(workload.model, workload.image_token_id).train()
    packs = pack_samples(samples, workload.pack_tokens, seed)
    variants = {"ours": _ours(model, packs)}
    plain, recomputing = (peers.build_peer(model, recompute).train() for recompute in (False, True))
    optimizers = {id(peer): _optimizer(peer) for peer in (plain, recomputing)}

    def variant(batches: list[list[Sample]], packed: bool, padding: float, peer: Any = plain) -> Variant:
        """Describe one peer over its batches."""
        to_inputs = peers.packed_inputs if packed else peers.padded_inputs
        # as many optimizer steps as ours, or small batches would pay for more of them
        groups = [batches[group[0] : group[-1] + 1] for group in _split(len(batches), len(packs))]
        steps = [_peer_step(peer, group, to_inputs, model.dtype) for group in groups]
        return Variant(peer, optimizers[id(peer)], steps, padding)

    for name, sort in (("padded", False), ("length_sorted", True)):
        batches = peers.padded_batches(samples, workload.batch_size, sort)
        variants[name] = variant(batches, packed=False, padding=peers.padding_share(batches))
    variants["hf_packed"] = variant(packs, packed=True, padding=0.0)
    return variants | {"recipe": variant(packs, packed=True, padding=0.0, peer=recomputing)}


def _ours(model: InternVL, packs: list[list[Sample]]) -> Variant:
    """Run our model on one pack a step."""

    def loss_of(batch: Batch, num_targets: int) -> Tensor:
        """Return the mean loss of a pack: () fp32."""
        hidden = model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            cu_seqlens=batch.cu_seqlens,
            max_seqlen=batch.max_seqlen,
            pixel_values=batch.pixel_values,
        )
        return model.token_losses(hidden, batch.labels).losses.sum() / num_targets

    def step(number: int, pack: list[Sample]) -> Step:
        """Make the work of one optimizer step."""
        batch, count = collate(pack, number, []), peers.num_targets(pack)
        return Step([lambda: loss_of(batch, count)], count)

    return Variant(model, _optimizer(model), [step(number, pack) for number, pack in enumerate(packs)])


def _peer_step(
    peer: Any,
    batches: list[list[Sample]],
    to_inputs: Callable[[Sequence[Sample], torch.dtype], peers.Inputs],
    dtype: torch.dtype,
) -> Step:
    """Accumulate the peer's gradients over some batches."""
    count = sum(map(peers.num_targets, batches))

    def micro_batch(batch: list[Sample]) -> Callable[[], Tensor]:
        """Return a function that computes a batch's loss: () fp32."""
        inputs = to_inputs(batch, dtype)
        return lambda: peers.peer_loss(peer, inputs, count)

    return Step([micro_batch(batch) for batch in batches], count)


def _split(num_batches: int, num_steps: int) -> list[list[int]]:
    """Divide batches evenly over the steps, in order; never more steps than batches."""
    parts = np.array_split(np.arange(num_batches), min(num_steps, num_batches))
    return [part.tolist() for part in parts]


def _optimizer(model: nn.Module) -> AdamW:
    """Build AdamW that computes everything and changes nothing; fused is four times as fast as foreach, also on CPU."""
    return AdamW(model.parameters(), lr=0.0, weight_decay=0.0, fused=True)


def _figures(variant: Variant, readings: list[Reading], num_tokens: int) -> dict[str, Any]:
    return {
        "tokens_per_cpu_s": spread([num_tokens / reading.cpu_s for reading in readings]),
        "cpu_s": spread([reading.cpu_s for reading in readings]),
        "extra_peak_mib": median_peak_mib(readings),
        "padding": variant.padding,
        "loss": readings[0].value,
    }


def _setting(workload: Workload, samples: list[Sample], repeats: int, seed: int) -> dict[str, Any]:
    num_tokens = sum(len(sample.input_ids) for sample in samples)
    visual = sum(len(sample.tiles) for sample in samples) * workload.model.num_visual_tokens
    return {
        "dtype": workload.model.dtype,
        "samples": len(samples),
        "tokens": num_tokens,
        "visual_share": round(visual / num_tokens, 3),
        "supervised_share": round(peers.num_targets(samples) / num_tokens, 3),
        "batch_size": workload.batch_size,
        "pack_tokens": workload.pack_tokens,
        "vocab_size": workload.model.language.vocab_size,
        "repeats": repeats,
        "seed": seed,
    }
