"""Train a few real steps under torch's memory profiler and return the most bytes that tensors held at once.

The profiler starts before the model is built, so that every byte that is freed was seen when it was allocated.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import lightning as L
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset

from internvl_lab.config import ModelConfig, OptimizerConfig, SchedulerConfig, StageConfig
from internvl_lab.constants import IGNORE_INDEX
from internvl_lab.data import Batch
from internvl_lab.models import InternVL
from internvl_lab.training import InternVLModule, loop_settings, silence_lightning
from internvl_lab.training.freezing import StageFreezing

IMAGE_ID = 5


def make_batch(config: ModelConfig, lengths: list[int], tiles: list[int], supervised: int) -> Batch:
    """Make a pack of random text: lengths (visual tokens included) and tiles of its samples, labels at its ends."""
    generator = torch.Generator().manual_seed(0)
    edge, num_tokens = config.vision.image_size, sum(lengths)
    ids = torch.randint(8, config.language.vocab_size, (1, num_tokens), generator=generator)
    labels = torch.full((1, num_tokens), IGNORE_INDEX)
    start = 0
    for length, count in zip(lengths, tiles, strict=True):
        visual = count * config.num_visual_tokens
        ids[0, start : start + visual] = IMAGE_ID
        answer = supervised * length // num_tokens
        labels[0, start + length - answer : start + length] = 9
        start += length
    return Batch(
        input_ids=ids,
        labels=labels,
        position_ids=torch.cat([torch.arange(n) for n in lengths])[None],
        cu_seqlens=torch.tensor([0, *lengths]).cumsum(0).int(),
        max_seqlen=max(lengths),
        loss_weights=(labels != IGNORE_INDEX).float(),
        pixel_values=torch.randint(0, 256, (sum(tiles), 3, edge, edge), generator=generator, dtype=torch.uint8),
        tiles_per_sample=torch.tensor(tiles, dtype=torch.int32),
        source_ids=torch.zeros(len(lengths), dtype=torch.int32),
        sample_keys=[str(i) for i in range(len(lengths))],
    )


class _Packs(Dataset[Batch]):
    """Give the same pack again and again."""

    def __init__(self, batch: Batch, count: int) -> None:
        self.batch, self.count = batch, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Batch:
        return self.batch


def peak_bytes(
    config: ModelConfig,
    stage: StageConfig,
    lengths: list[int],
    tiles: list[int],
    supervised: int,
    *,
    precision: str = "32-true",
    accumulation: int = 1,
) -> int:
    """Measure three optimizer steps of a stage, as `run_stage` trains it, on one CPU."""
    silence_lightning()
    gc.collect()  # what an earlier run left behind would be counted as released by this one
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        _train(config, stage, make_batch(config, lengths, tiles, supervised), precision, accumulation)
    return max(_held(profiler))


def _train(config: ModelConfig, stage: StageConfig, batch: Batch, precision: str, accumulation: int) -> None:
    torch.manual_seed(0)
    module = InternVLModule(InternVL(config, IMAGE_ID), stage, OptimizerConfig(), SchedulerConfig(), 0)
    trainer = L.Trainer(
        **loop_settings(stage, accumulation, 1),
        accelerator="cpu",
        precision=precision,
        callbacks=[StageFreezing(stage)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    packs = _Packs(batch, stage.max_steps * accumulation)
    trainer.fit(module, DataLoader(packs, batch_size=None))


def _held(profiler: profile) -> Iterator[int]:
    """Yield the bytes held after every allocation and every release, in order."""
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        yield held
