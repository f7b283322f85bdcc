"""Ways to train on the same samples: ours and the peers, over one set of parameters and one optimizer.

samples ── pack ──> ours (InternVL), hf_packed, recipe ──┐
        ── pad ───> padded, length_sorted ───────────────┴──> steps: micro-batches, clipping, AdamW at rate 0
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from internvl_lab.bench import peers
from internvl_lab.bench.samples import pack_samples
from internvl_lab.bench.setting import StepSetting
from internvl_lab.bench.timing import Clock
from internvl_lab.constants import PARTS
from internvl_lab.data.batch import Batch
from internvl_lab.data.encoding import Sample
from internvl_lab.data.loader import collate
from internvl_lab.models import InternVL, compile_layers
from internvl_lab.models.flops import language_flops, vision_flops
from internvl_lab.training.freezing import apply_stage

_MAX_GRAD_NORM = 1.0

Rung = tuple[str, Callable[[], None]]
"""(what is recomputed in the backward pass, the function that sets a model to it)."""


ToInputs = Callable[[Sequence[Sample], torch.dtype], peers.Inputs]
"""(samples, dtype of the pixels) -> keywords of a peer's forward."""


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
    ladder: Sequence[Rung]
    """Ways to recompute, the fastest first; the first that fits into memory is measured."""
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    padding: float = 0.0
    """Share of padding in the computed tokens."""
    rung: int = 0

    @property
    def recomputes(self) -> str:
        """Say what is recomputed in the backward pass."""
        return self.ladder[self.rung][0]

    def settle(self, clock: Clock) -> bool:
        """Find the first rung that fits into memory; False where none does.

        A GPU tries a whole pass, because the largest batch decides and every shape may have to be compiled; a CPU,
        which has memory but no time, warms up with one step.
        """
        for rung in range(len(self.ladder)):
            self.rung = rung
            if self._fits(clock):
                return True
            self.optimizer.zero_grad()
            clock.release()
        return False

    def _fits(self, clock: Clock) -> bool:
        try:
            self.ladder[self.rung][1]()
            self._run(self.steps if clock.device.type == "cuda" else self.steps[:1])
        except torch.OutOfMemoryError:
            return False
        return True

    def prepare(self, clock: Clock) -> None:
        """Get ready for a reading: variants share modules; on a GPU, blocks of memory come with the first step."""
        self.ladder[self.rung][1]()
        if clock.device.type == "cuda":
            clock.release()
            self._run(self.steps[:1])

    def run_pass(self) -> Tensor:
        """Train on all samples once and return () the mean loss over all supervised tokens, on the device."""
        return self._run(self.steps)

    def _run(self, steps: Sequence[Step]) -> Tensor:
        self.optimizer.zero_grad()  # of a pass that ran out of memory
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        total = torch.zeros((), device=parameters[0].device)
        for step in steps:
            for loss_of in step.losses:
                with self.autocast():
                    loss = loss_of()
                if loss.requires_grad:  # a peer's batch without tiles trains nothing in stage 1
                    loss.backward()
                total += loss.detach() * step.num_targets
            nn.utils.clip_grad_norm_(parameters, _MAX_GRAD_NORM)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return total / sum(step.num_targets for step in steps)


def build_variants(
    setting: StepSetting, samples: list[Sample], device: torch.device, seed: int = 0
) -> dict[str, Variant]:
    """Build all variants over the same samples, `ours` first, on the device.

    Raises:
        ConfigError: an attention backend that cannot run there.
    """
    workload, stage = setting.workload, setting.stage
    model = build_model(setting, device, seed)
    lora = stage.lora if setting.adapts else None
    plain, recipe = (peers.build_peer(model, own, lora) for own in (False, True))
    if setting.compiled:
        compile_layers(model)
    packs = pack_samples(samples, workload.pack_tokens, seed, workload.pack_tiles)
    # the rate is 0, which costs AdamW the same; fused is four times as fast as foreach, also on CPU
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = AdamW(trained, lr=0.0, weight_decay=0.0, fused=True)
    mixed = setting.precision == "bf16-mixed"
    autocast = partial(torch.autocast, device.type, torch.bfloat16) if mixed else nullcontext
    variant = partial(Variant, optimizer=optimizer, autocast=autocast)

    def peer_variant(peer: Any, batches: list[list[Sample]], to_inputs: ToInputs, ladder: Sequence[bool]) -> Variant:
        """Describe one peer over its batches, in as many optimizer steps as ours: small ones would pay for more."""
        groups = [batches[group[0] : group[-1] + 1] for group in _split(len(batches), len(packs))]
        steps = [_peer_step(peer, group, to_inputs, model.dtype, device) for group in groups]
        rungs = [("all" if full else "none", partial(peers.set_recompute, peer, full)) for full in ladder]
        return variant(peer, steps=steps, ladder=rungs, padding=peers.padding_share(batches))

    built = {"ours": variant(model, steps=_our_steps(model, packs), ladder=our_ladder(setting, model))}
    for name, sort in (("padded", False), ("length_sorted", True)):
        batches = peers.padded_batches(samples, workload.batch_size, sort)
        built[name] = peer_variant(plain, batches, peers.padded_inputs, (False, True))
    built["hf_packed"] = peer_variant(plain, packs, peers.packed_inputs, (False, True))
    with autocast():  # which decides what the kernels get
        to_inputs = partial(peers.recipe_inputs, model.backend, device)
    built["recipe"] = peer_variant(recipe, packs, to_inputs, (True,))
    for name in ("hf_packed", "recipe"):
        built[name].padding = 0.0
    return built


def build_model(setting: StepSetting, device: torch.device, seed: int) -> InternVL:
    """Build our model with random weights, made on the device; the stage says what trains."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
        torch.manual_seed(seed)
        model = InternVL(setting.workload.model, setting.workload.image_token_id)
        apply_stage(model, setting.stage)
    return model


def our_ladder(setting: StepSetting, model: InternVL) -> list[Rung]:
    """List what ours may recompute: nothing, the cheaper part, the dearer one, both; `none` and `full` are the ends.

    A frozen encoder keeps no activations, so that nothing is gained there.
    """
    workload, stage = setting.workload, setting.stage
    config, learns = workload.model, {*stage.trainable, *stage.lora.parts}
    work = {"language": workload.pack_tokens * language_flops(config)[0]}
    if "vision" in learns:
        tiles = workload.pack_tiles or workload.pack_tokens // config.num_visual_tokens
        work["vision"] = tiles * sum(vision_flops(config))
    cheapest_first = sorted(work, key=lambda part: work[part])
    choices = [(), *((part,) for part in cheapest_first), tuple(part for part in PARTS if part in work)]
    chosen = {"none": choices[:1], "full": choices[-1:], "auto": list(dict.fromkeys(choices))}[setting.checkpointing]
    stages = [("+".join(parts) or "none", replace(stage, gradient_checkpointing=parts)) for parts in chosen]
    return [(name, partial(apply_stage, model, of)) for name, of in stages]


def _our_steps(model: InternVL, packs: list[list[Sample]]) -> list[Step]:
    """Run our model on one pack a step."""

    def loss_of(batch: Batch, num_targets: int) -> Tensor:
        """Return the mean loss of a pack: () fp32."""
        hidden = model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            cu_seqlens=batch.cu_seqlens,
            max_seqlen=batch.max_seqlen,
            pixel_values=batch.pixel_values,
            visual_positions=batch.visual_positions,
        )
        return model.token_losses(hidden, batch.labels, batch.supervised_rows).losses.sum() / num_targets

    def step(number: int, pack: list[Sample]) -> Step:
        """Make the work of one optimizer step."""
        count = peers.num_targets(pack)
        batch = collate(pack, number, []).locate(model.image_token_id)
        return Step([partial(loss_of, batch.to(model.device), count)], count)

    return [step(number, pack) for number, pack in enumerate(packs)]


def _peer_step(
    peer: Any, batches: list[list[Sample]], to_inputs: ToInputs, dtype: torch.dtype, device: torch.device
) -> Step:
    """Accumulate the peer's gradients over some batches."""
    count = sum(map(peers.num_targets, batches))

    def micro_batch(batch: list[Sample]) -> Callable[[], Tensor]:
        """Return a function that computes a batch's loss: () fp32."""
        inputs = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in to_inputs(batch, dtype).items()}
        return lambda: peers.peer_loss(peer, inputs, count)

    return Step([micro_batch(batch) for batch in batches], count)


def _split(num_batches: int, num_steps: int) -> list[list[int]]:
    """Divide batches evenly over the steps, in order; never more steps than batches."""
    parts = np.array_split(np.arange(num_batches), min(num_steps, num_batches))
    return [part.tolist() for part in parts]
