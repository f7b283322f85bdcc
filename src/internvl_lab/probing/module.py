"""Train all heads on one encoder at once: every depth, kind, target and learning rate sees the same batch.

    batch ─ stored features, or pictures ─ frozen encoder ─> {"linear@4": (B, 2C), "attention@4": (B, 1+P, C), ...}
          ─ heads ─> logits (B, J, K) each ─> sum over J of rate_j x cross-entropy_j ─> SGD at rate 1

A loss times its rate is a step at that rate, since SGD is linear in the gradient and there is no weight decay: so one
optimizer serves all learning rates.

Left out, because the report names none of it: the authors' probing configs do not switch off what their `config.py`
starts from, Mixup 0.8, CutMix 1.0, label smoothing 0.1 and gradients clipped at norm 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from internvl_lab.config import ClassificationConfig
from internvl_lab.probing.encoder import Encoder
from internvl_lab.probing.features import extract
from internvl_lab.probing.heads import AttentionProbes, LinearProbes, probe_losses

RATES_PER = 512
"""Pictures a step that a learning rate of the configuration is meant for."""
EMA = "ema "
"""Before the name of a head's moving average in predictions."""


@dataclass(frozen=True)
class ProbeAxis:
    """Name the J heads trained side by side: every target with every learning rate."""

    targets: tuple[str, ...]
    num_classes: tuple[int, ...]
    """Of each target."""
    learning_rates: tuple[float, ...]

    @property
    def heads(self) -> list[tuple[int, float]]:
        """Return (index of the target, learning rate) of each of the J heads."""
        return [(target, rate) for target in range(len(self.targets)) for rate in self.learning_rates]

    def place(self, target: int, rate: int) -> int:
        """Return which head belongs to a target's index and a rate's index."""
        return target * len(self.learning_rates) + rate


def build_heads(encoder: Encoder, kinds: Sequence[str], depths: Sequence[int], axis: ProbeAxis) -> nn.ModuleDict:
    """Build the heads of every kind at every depth, named `kind@depth`."""
    width, classes = encoder.config.hidden_size, [axis.num_classes[target] for target, _ in axis.heads]
    heads = nn.ModuleDict()
    for kind in kinds:
        for depth in depths:
            heads[f"{kind}@{depth}"] = (
                LinearProbes(2 * width, classes)
                if kind == "linear"
                else AttentionProbes(width, encoder.config.num_attention_heads, classes)
            )
    return heads


class ProbeModule(L.LightningModule):
    """Train heads; the encoder is no part of the module's parameters.

    Args:
        encoder: frozen; used when a batch holds pictures instead of features.
        heads: from `build_heads`.
        axis: what the J heads are.
        config: rates, momentum, moving average.
        batch_size: pictures a step, which scale the rates.
        num_steps, warmup_steps: of the schedule.
    """

    rates: Tensor
    target_of_head: Tensor

    def __init__(
        self,
        encoder: Encoder,
        heads: nn.ModuleDict,
        axis: ProbeAxis,
        config: ClassificationConfig,
        batch_size: int,
        num_steps: int,
        warmup_steps: int,
    ) -> None:
        super().__init__()
        self.heads, self.axis, self.config = heads, axis, config
        self._encoder = (encoder,)  # in a tuple, which hides it from nn.Module: not trained, moved or saved
        self.num_steps, self.warmup_steps = num_steps, warmup_steps
        self.depths = sorted({int(name.split("@")[1]) for name in heads})
        self.kinds = sorted({name.split("@")[0] for name in heads})
        self.register_buffer("rates", torch.tensor([rate for _, rate in axis.heads]) * batch_size / RATES_PER)
        self.register_buffer("target_of_head", torch.tensor([target for target, _ in axis.heads]))
        self.ema = None
        if config.ema_decay is not None:
            average = get_ema_multi_avg_fn(config.ema_decay)
            self.ema = AveragedModel(heads, multi_avg_fn=average, use_buffers=True)
        self.among: tuple[int, ...] | None = None
        """Classes that predictions may take; None = all."""
        self.num_read = 0
        """Pictures of all training batches so far."""

    def training_step(self, batch: Mapping[str, Any], _: int) -> Tensor | None:
        """Return the sum of all heads' losses, each times its rate: a scalar.

        None leaves the step out: batch normalisation needs two pictures, and others may be unreadable.
        """
        self.num_read += len(batch["rows"])
        if len(batch["rows"]) < 2:
            return None
        features = self.features_of(batch)
        labels = batch["labels"][:, self.target_of_head]
        losses = [probe_losses(head(features[name]), labels) for name, head in self.heads.items()]
        return torch.stack([(self.rates * loss).sum() for loss in losses]).sum()

    def on_train_batch_end(self, *_: Any) -> None:
        """Follow the heads with their moving average."""
        if self.ema is not None:
            self.ema.update_parameters(self.heads)

    def predict_step(self, batch: Mapping[str, Any], _: int) -> dict[str, Tensor]:
        """Return the rows (B,) of a batch and the class that each head gives them: name to (B, J); none for B = 0."""
        predictions = {"rows": batch["rows"]}
        if not len(batch["rows"]):
            return predictions
        features = self.features_of(batch)
        for name, head in self.heads.items():
            predictions[name] = self._answer(head(features[name]))
            if self.ema is not None:
                average = cast("nn.ModuleDict", self.ema.module)[name]
                predictions[EMA + name] = self._answer(average(features[name]))
        return predictions

    def features_of(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Take the features of a batch, or encode its pictures: name to (B, 2C) or (B, 1+P, C)."""
        if "features" in batch:
            stored: dict[str, Tensor] = batch["features"]
            return stored
        encoder = self._encoder[0]
        encoder.move_to(self.device)
        return extract(encoder, batch["pixel_values"], self.kinds, self.depths)

    def configure_optimizers(self) -> Any:
        """Build SGD at rate 1 with the schedule.

        Nesterov's momentum as in the authors' `optimizer.py`.
        """
        momentum = self.config.momentum
        optimizer = SGD(self.heads.parameters(), lr=1.0, momentum=momentum, nesterov=momentum > 0)
        schedule = LambdaLR(optimizer, lambda step: rate_factor(step, self.num_steps, self.warmup_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _answer(self, logits: Tensor) -> Tensor:
        """Choose a class: (B, J, K) -> (B, J)."""
        if self.among is None:
            return logits.argmax(-1)
        among = torch.tensor(self.among, device=logits.device)
        return among[logits[..., among].argmax(-1)]


def rate_factor(step: int, num_steps: int, warmup_steps: int) -> float:
    """Return a step's rate over the peak: linear from 0 over the warm-up, then a cosine that reaches 0 at the end.

    The warm-up's epoch is one of the ten: the authors' configs say `EPOCHS: 10, WARMUP_EPOCHS: 1`, their loop runs
    EPOCHS epochs, and timm's `CosineLRScheduler(t_initial=num_steps, warmup_t=warmup_steps)`, without `warmup_prefix`,
    lets the cosine run beneath the warm-up: at its end the rate steps from the peak to 0.976 of it. (Their loop sets
    a rate after its step, so each counts one step later than here.)

    Source: authors' `classification/lr_scheduler.py`, `main.py` and `configs/attn_pooling_probing/*v2_5*.yaml`; spec
    section 11.3 ("10 epochs + 1 warm-up").
    """
    if step < warmup_steps:
        return step / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * min(1.0, step / num_steps)))
