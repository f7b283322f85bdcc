"""Freeze what a stage does not train, and prove it.

`requires_grad_(False)` alone is not enough: a frozen encoder in train mode still drops paths, and a parameter
that slipped into an optimizer group still decays. So the callback applies, verifies against the optimizer,
keeps frozen parts in eval mode, and compares checksums of the frozen weights before and after training.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from internvl_lab.config import StageConfig
from internvl_lab.errors import CheckpointError, InternVLLabError
from internvl_lab.models import InternVL, add_adapters, is_adapter, whole
from internvl_lab.training.module import as_step_module

log = logging.getLogger(__name__)

_CHUNK = 1 << 22
"""Elements that the checksum widens to int64 at a time."""


class StageFreezing(L.Callback):
    """Apply a stage's trainable parts, adapters, drop path rate and gradient checkpointing to the model.

    Applied in `setup`, so before the optimizer is built and before DDP or FSDP wrap the model; verified when
    training starts, which is after a checkpoint has been restored.

    Args:
        stage: the stage.
    """

    def __init__(self, stage: StageConfig) -> None:
        self.stage = stage
        self._fingerprints: dict[str, int] = {}
        self._eval_modules: list[nn.Module] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Freeze, set drop path and checkpointing, and log a line per part."""
        model = as_step_module(pl_module).model
        apply_stage(model, self.stage)
        for line in describe_parts(model):
            log.info("%s", line)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Verify flags, optimizer groups and restored frozen weights; put frozen parts into eval mode.

        Raises:
            InternVLLabError: a parameter trains that should not, or the other way round.
            CheckpointError: the restored frozen weights are not those the checkpoint was saved with.
        """
        model = as_step_module(pl_module).model
        verify(model, self.stage, trainer.optimizers)
        self._eval_modules = eval_modules(model, self.stage)
        keep_in_eval(self._eval_modules)
        self._compare(self._frozen_fingerprints(model), "after the checkpoint was restored")

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Put frozen parts back into eval mode if something called `train()`; costs a flag a part."""
        keep_in_eval(self._eval_modules)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Verify that no bit of a frozen part has changed.

        Raises:
            CheckpointError: names the part that has.
        """
        self._compare(self._frozen_fingerprints(as_step_module(pl_module).model), "during training")

    def _frozen_fingerprints(self, model: InternVL) -> dict[str, int]:
        frozen = ((name, part) for name, part in model.parts().items() if name not in self.stage.trainable)
        return {
            name: fingerprint(p for key, p in part.named_parameters() if not is_adapter(key)) for name, part in frozen
        }

    def _compare(self, current: dict[str, int], when: str) -> None:
        expected, self._fingerprints = self._fingerprints or current, current
        for name, value in current.items():
            if expected.get(name, value) != value:
                raise CheckpointError(f"stage {self.stage.name}: frozen part {name!r} has changed {when}")

    def state_dict(self) -> dict[str, Any]:
        """Return the fingerprints of the frozen parts."""
        return {"checksums": dict(self._fingerprints)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Expect the frozen parts of the checkpoint; checkpoints from before the positions counted have other sums."""
        self._fingerprints = dict(state_dict.get("checksums", {}))


def apply_stage(model: InternVL, stage: StageConfig) -> None:
    """Add adapters, set `requires_grad`, modes, drop path rate and gradient checkpointing as the stage says."""
    add_adapters(model, stage.lora)
    for name, part in model.parts().items():
        for key, parameter in part.named_parameters():
            parameter.requires_grad_(_trains(stage, name, key))
    model.set_drop_path(stage.drop_path_rate)
    model.set_gradient_checkpointing(stage.gradient_checkpointing)
    model.train()
    keep_in_eval(eval_modules(model, stage))


def _trains(stage: StageConfig, part: str, name: str) -> bool:
    """Say whether a stage trains a parameter: all of a trainable part, of others the adapters alone."""
    return part in stage.trainable or is_adapter(name)


def eval_modules(model: InternVL, stage: StageConfig) -> list[nn.Module]:
    """Return the modules that a stage keeps in eval mode: those of the frozen parts, if it wants that.

    A frozen language model under gradient checkpointing stays in train mode: transformers recomputes in train
    mode only, and without dropout the mode changes nothing else. So does a part with adapters, for their dropout.
    """
    recomputed = {"language"} & set(stage.gradient_checkpointing)
    trained = set(stage.trainable) | set(stage.lora.parts)
    names = set(model.parts()) - trained - recomputed if stage.frozen_eval else set()
    return [module for name, part in model.parts().items() if name in names for module in _roots(part)]


def _roots(part: nn.Module) -> list[nn.Module]:
    """Return the modules a part consists of; a container made only to group them has no mode of its own."""
    return list(part.children()) if isinstance(part, nn.ModuleDict | nn.ModuleList) else [part]


def keep_in_eval(modules: Iterable[nn.Module]) -> None:
    """Put modules into eval mode; looks at one flag each, which `train()` on any ancestor sets."""
    for module in modules:
        if module.training:
            module.eval()


def verify(model: InternVL, stage: StageConfig, optimizers: Iterable[Optimizer]) -> None:
    """Check that exactly the stage's parts train.

    Raises:
        InternVLLabError: names the first parameter that is wrong.
    """
    optimized = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for part_name, part in model.parts().items():
        for name, parameter in part.named_parameters():
            wanted = _trains(stage, part_name, name)
            if parameter.requires_grad != wanted or (id(parameter) in optimized) != wanted:
                state = "must train but does not" if wanted else "must be frozen but is not"
                raise InternVLLabError(f"stage {stage.name}: parameter {part_name}: {name} {state}")


def describe_parts(model: InternVL) -> list[str]:
    """Return one line per part: name, Frozen, TRAINABLE or LoRA, and how many of its parameters train."""
    lines = []
    for name, part in model.parts().items():
        total = sum(p.numel() for p in part.parameters())
        training = sum(p.numel() for p in part.parameters() if p.requires_grad)
        state = "TRAINABLE" if training == total else "LoRA" if training else "Frozen"
        lines.append(f"{name:<10} {state:<10} {training:>13,} of {total:>13,} parameters train")
    return lines


@torch.no_grad()
def fingerprint(parameters: Iterable[Tensor]) -> int:
    """Return a checksum of the tensors (any shape): bit patterns, weighted by position, summed modulo 2^64.

    It always changes when a single element does, because the weights are odd, or when two elements of up to 32 bits
    trade places in a tensor; that other changes cancel out is unlikely, not impossible. One pass over the memory; on
    a GPU one number comes back per tensor. Sharded tensors are gathered one by one,
    so that the number is the same on all ranks and for any sharding.
    """
    mixed = 0
    for parameter in parameters:
        gathered = whole(parameter)
        width = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[gathered.element_size()]
        bits = gathered.detach().contiguous().view(width)
        mixed = (mixed * 1_000_003 + int(_weighted_sum(bits.flatten()).item())) % (1 << 64)
    return mixed


def _weighted_sum(bits: Tensor) -> Tensor:
    """Sum (N,) integers times 1, 3, 5, ... as a 0-d int64 that wraps around; in chunks, to need little memory."""
    total = torch.zeros((), dtype=torch.int64, device=bits.device)
    odd = torch.arange(1, 2 * min(_CHUNK, len(bits)) + 1, 2, dtype=torch.int64, device=bits.device)
    for start in range(0, len(bits), _CHUNK):
        chunk = bits[start : start + _CHUNK].to(torch.int64)
        total += (chunk * (odd[: len(chunk)] + 2 * start)).sum()
    return total
