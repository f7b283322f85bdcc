"""Train one segmentation head on one encoder and score it: linear, UperNet, or UperNet with the encoder trained too.

crops (B, 3, S, S) uint8 ─ encoder ─ maps of the chosen layers ─ head ─> logits ─ cross-entropy (255 ignored)
test picture ─ slide ─> classes ─> mIoU (torchmetrics), and a grid of picture, truth and prediction
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassJaccardIndex

from internvl_lab.config import SegmentationConfig
from internvl_lab.errors import ConfigError, SampleError
from internvl_lab.models import set_drop_path
from internvl_lab.probing.batches import training_order
from internvl_lab.probing.encoder import Encoder
from internvl_lab.probing.features import check_read, worker_options
from internvl_lab.probing.layer_decay import decayed_groups
from internvl_lab.probing.mask_views import TrainingMasks, window_view
from internvl_lab.probing.masks import IGNORED, Mask, MaskSet
from internvl_lab.probing.pyramid import (
    AUXILIARY_MAPS,
    LinearSegmenter,
    UperSegmenter,
    linear_depth,
    pyramid_depths,
    to_map,
)
from internvl_lab.probing.score import Score
from internvl_lab.probing.sliding import slide

log = logging.getLogger(__name__)

WARMUP_RATIO = 1e-6
MIOU = "mIoU"
"""Target of the scores."""
Example = tuple[Image.Image, Mask, Mask]
"""(picture, truth (H, W), prediction (H, W))."""


class SegmentationModule(L.LightningModule):
    """Train a head, or head and encoder.

    Args:
        encoder: its tower is copied where it trains, and else left as it is.
        head: `linear`, `upernet` or `full`.
        num_classes: K.
        config: sizes, rates, depths.
        num_steps: of the schedule.
    """

    def __init__(
        self, encoder: Encoder, head: str, num_classes: int, config: SegmentationConfig, num_steps: int
    ) -> None:
        super().__init__()
        layers, width = encoder.num_layers, encoder.config.hidden_size
        self.config, self.num_steps, self.num_layers, self.trains_encoder = config, num_steps, layers, head == "full"
        if head == "linear":
            asked: tuple[int, ...] = (linear_depth(layers, config.linear_depth),)
            self.segmenter: LinearSegmenter | UperSegmenter = LinearSegmenter(width, num_classes)
        else:
            asked = pyramid_depths(layers, config.pyramid_depths)
            self.segmenter = UperSegmenter(width, num_classes, config.channels, AUXILIARY_MAPS[head])
        asked = tuple(encoder.resolve_depths((depth,))[0] for depth in asked)  # in the order of the pyramid
        self.depths, self.weight_decay = asked, 0.0 if head == "linear" else config.weight_decay
        if self.trains_encoder:
            self.tower = copy.deepcopy(encoder.tower).requires_grad_(True).train()  # in eval mode no path drops
            nn.Module.to(self.tower, torch.float32)
            set_drop_path(self.tower, config.drop_path_rate)
            encoder = Encoder(encoder.label, encoder.fingerprint, encoder.config, self.tower)
        self._encoder = (encoder,)  # hidden from nn.Module: a frozen encoder is not trained or saved
        self.num_read = 0
        """Crops of all training batches so far."""

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor | None]:
        """Segment crops: uint8 (B, 3, S, S) to logits (B, K, S, S), and auxiliary ones in training."""
        encoder = self._encoder[0]
        encoder.move_to(self.device)
        patch = encoder.config.patch_size
        grid = (pixel_values.shape[2] // patch, pixel_values.shape[3] // patch)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trains_encoder):
            layers = enumerate(islice(encoder.hidden_states(pixel_values), max(self.depths) + 1))
            states = {depth: tokens for depth, tokens in layers if depth in self.depths}
        logits, auxiliary = self.segmenter([to_map(states[depth], grid) for depth in self.depths])
        resize = (pixel_values.shape[2], pixel_values.shape[3])
        large = [None if x is None else F.interpolate(x, resize, mode="bilinear") for x in (logits, auxiliary)]
        return cast("tuple[Tensor, Tensor | None]", tuple(large))

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], _: int) -> Tensor | None:
        """Return the loss of those crops (B, 3, S, S) with classes (B, S, S) that could be read (B,): a scalar.

        None leaves the step out: batch normalisation needs two crops.
        """
        read = batch[2]
        self.num_read += int(read.sum())
        if read.sum() < 2:
            return None
        crops, classes = batch[0][read], batch[1][read]
        logits, auxiliary = self(crops)
        loss = _cross_entropy(logits, classes)
        if auxiliary is not None:
            loss = loss + self.config.auxiliary_weight * _cross_entropy(auxiliary, classes)
        return loss

    def configure_optimizers(self) -> Any:
        """Build AdamW over layer-decay groups, with a linear fall after a warm-up."""
        c = self.config
        decay = c.layer_decay if self.trains_encoder else 1.0
        groups = decayed_groups(self.named_parameters(), self.num_layers, c.learning_rate, self.weight_decay, decay)
        optimizer = AdamW(groups, lr=c.learning_rate, betas=(0.9, 0.999))
        schedule = LambdaLR(optimizer, lambda step: poly_factor(step, self.num_steps, c.warmup_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Average over the pixels that count; 0 where none does."""
    total = F.cross_entropy(logits, classes, ignore_index=IGNORED, reduction="sum")
    return total / (classes != IGNORED).sum().clamp(min=1)


def poly_factor(step: int, num_steps: int, warmup_steps: int) -> float:
    """Return a step's rate over the peak: power 1 down to 0, times a linear warm-up from 1e-6. Source: spec 11.3."""
    warm = 1 - (1 - step / warmup_steps) * (1 - WARMUP_RATIO) if step < warmup_steps else 1.0
    return warm * max(0.0, 1 - step / num_steps)


@dataclass
class Segmenter:
    """Probe one encoder by segmentation.

    Args:
        encoder: frozen; full tuning works on a copy.
        train: set to learn from.
        tests: sets to score on.
        config: heads, sizes, schedule.
        build_trainer: gives a Lightning Trainer for fixed options.
        num_workers: processes that read pictures.
        max_steps: shorten each training; None = as configured.
        max_bad_share: share of pictures that may be unreadable.
    """

    encoder: Encoder
    train: MaskSet
    tests: Mapping[str, MaskSet]
    config: SegmentationConfig
    build_trainer: Callable[..., L.Trainer]
    device: torch.device
    num_workers: int = 0
    max_steps: int | None = None
    max_bad_share: float = 0.01

    def __post_init__(self) -> None:
        """Refuse crops that patches do not tile, sets of other classes, and too few pictures."""
        if len(self.train) < 2:
            raise ConfigError(f"{self.train.name}: batch normalisation needs two training pictures at least")
        if self.config.crop_size % self.encoder.config.patch_size:
            raise ConfigError(
                f"probe.segmentation.crop_size={self.config.crop_size} is no multiple of {self.encoder.label}'s "
                f"patches of {self.encoder.config.patch_size} pixels"
            )
        for test in self.tests.values():
            if test.num_classes != self.train.num_classes:
                raise ConfigError(f"{test.name} has {test.num_classes} classes, training {self.train.num_classes}")

    def run(self, head: str, seed: int) -> tuple[list[Score], list[Example]]:
        """Train one head from one seed; return its scores, and examples of the first test set.

        Raises:
            ShardError: too many pictures that cannot be read.
        """
        L.seed_everything(seed, verbose=False)
        c = self.config
        num_steps = min(c.max_steps, self.max_steps or c.max_steps)
        module = SegmentationModule(self.encoder, head, self.train.num_classes, c, num_steps)
        batch_size = min(c.batch_size, len(self.train))
        epochs = -(-num_steps // max(1, len(self.train) // batch_size))
        order = training_order(np.arange(len(self.train)), batch_size, epochs, seed, num_steps)
        loader = DataLoader(
            TrainingMasks(self.train, c.crop_size, seed if c.augment else None),
            batch_sampler=order,
            **worker_options(self.num_workers),
        )
        self.build_trainer(max_epochs=1).fit(module, loader)
        check_read(module.num_read, sum(map(len, order)), self.train.name, self.max_bad_share)
        module = module.to(self.device).eval()
        scores, examples = [], list[Example]()
        for name, test in self.tests.items():
            value, n, shown = score_masks(module, test, c, self.encoder.config.patch_size)
            check_read(n, len(test), test.name, self.max_bad_share)
            scores.append(Score(self.encoder.label, seed, head, max(module.depths), MIOU, name, n, value))
            examples = examples or shown
        return scores, examples


@torch.no_grad()
def score_masks(
    module: SegmentationModule, test: MaskSet, config: SegmentationConfig, patch_size: int
) -> tuple[float, int, list[Example]]:
    """Segment a test set with sliding windows; return (mIoU over the classes that occur, pictures, examples)."""
    metric = MulticlassJaccardIndex(test.num_classes, average="macro", ignore_index=IGNORED)
    examples: list[Example] = []
    number = 0
    for index in range(len(test)):
        try:
            image, mask = test.read(index)
        except SampleError as error:
            log.warning("%s: %s; left out", test.name, error)
            continue
        picture = window_view(image, config.crop_size, patch_size).to(module.device)
        size = (image.height, image.width)
        found = slide(lambda crop: module(crop)[0], picture, config.crop_size, config.stride, size).cpu()
        metric.update(found[None], torch.from_numpy(mask.astype(np.int64))[None])
        number += 1
        if len(examples) < config.grid_pictures:
            examples.append((image, mask, found.numpy().astype(np.uint8)))
    return (float(metric.compute()) if number else float("nan")), number, examples


def heads_of(config: SegmentationConfig) -> Sequence[str]:
    """Return the heads to train, linear first."""
    return sorted(config.heads, key=("linear", "upernet", "full").index)
