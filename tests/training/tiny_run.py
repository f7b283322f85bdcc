"""A tiny InternVL, packs made from their number, and a command that trains it.

Tests load this file for its functions; the kill and multi-rank tests run it as a script:
`python tiny_run.py RUN_DIR --steps 12 --packs 2 --devices 1`, the same command again resumes.
"""

from __future__ import annotations

import argparse
import logging
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch

from internvl_lab.config import (
    CallbacksConfig,
    LanguageConfig,
    LoraConfig,
    ModelConfig,
    OptimizerConfig,
    PackingConfig,
    SchedulerConfig,
    StageConfig,
    VisionConfig,
)
from internvl_lab.constants import IGNORE_INDEX
from internvl_lab.data.batch import Batch
from internvl_lab.data.weights import token_weights
from internvl_lab.models import InternVL, gather_weights
from internvl_lab.tracking import CsvLog, last_values
from internvl_lab.training import (
    FSDP2,
    InternVLModule,
    StopSignals,
    build_callbacks,
    find_resume,
    fsdp2_strategy,
    loop_settings,
    silence_lightning,
)

VOCAB, IMAGE_ID, TILE = 64, 3, 28
SOURCES = ("alpha", "beta")
PACKING = PackingConfig(max_tokens=64, max_tiles=4)


def tiny_model(seed: int = 0) -> InternVL:
    """Build an InternVL of some ten thousand parameters; one visual token a tile of 28 px."""
    torch.manual_seed(seed)
    vision = VisionConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=TILE,
        patch_size=14,
    )
    language = LanguageConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        vocab_size=VOCAB,
    )
    return InternVL(ModelConfig(vision=vision, language=language, attention="sdpa_docs"), IMAGE_ID)


def tiny_sample(rng: np.random.Generator, averaging: str) -> dict[str, np.ndarray]:
    """Make one sample: an image token or none, a question, an answer of 1 to 6 tokens."""
    tiles = int(rng.integers(0, 2))
    answer = int(rng.integers(1, 7))
    length = tiles + 3 + answer
    ids = rng.integers(8, VOCAB, length)
    ids[:tiles] = IMAGE_ID
    labels = np.full(length, IGNORE_INDEX)
    labels[-1 - answer : -1] = ids[-answer:]
    responses = np.where(labels == IGNORE_INDEX, -1, 0)
    weights = token_weights(labels, responses, averaging, "sample")
    pixels = rng.integers(0, 256, (tiles, 3, TILE, TILE), dtype=np.uint8)
    return {"ids": ids, "labels": labels, "weights": weights, "pixels": pixels}


def make_batch(samples: list[dict[str, np.ndarray]], keys: list[str], pack: int = 0) -> Batch:
    """Join samples to a pack."""
    lengths = [len(sample["ids"]) for sample in samples]
    joined = {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}
    return Batch(
        input_ids=torch.from_numpy(joined["ids"]).long()[None],
        labels=torch.from_numpy(joined["labels"]).long()[None],
        position_ids=torch.cat([torch.arange(n) for n in lengths])[None],
        cu_seqlens=torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32),
        max_seqlen=max(lengths),
        loss_weights=torch.from_numpy(joined["weights"])[None],
        pixel_values=torch.from_numpy(joined["pixels"]),
        tiles_per_sample=torch.tensor([len(sample["pixels"]) for sample in samples], dtype=torch.int32),
        source_ids=torch.tensor([i % len(SOURCES) for i in range(len(samples))], dtype=torch.int32),
        sample_keys=keys,
        pack_number=pack,
    )


def tiny_batch(pack: int, averaging: str = "square") -> Batch:
    """Return pack number `pack`, always the same, of one to three samples."""
    rng = np.random.default_rng(pack)
    count = int(rng.integers(1, 4))
    samples = [tiny_sample(rng, averaging) for _ in range(count)]
    return make_batch(samples, [f"{pack}-{i}" for i in range(count)], pack)


class PackLoader:
    """Stand in for `data.loader.PackLoader`: all packs of the stage in its length, only those left in its iterator."""

    def __init__(self, make: Callable[[int], Batch], steps: int, packs: int, rank: int, world: int) -> None:
        self.make, self.steps, self.packs, self.rank, self.world = make, steps, packs, rank, world
        self.next_step = 0

    def __len__(self) -> int:
        return self.steps * self.packs // self.world

    def __iter__(self) -> Iterator[Batch]:
        share = self.packs // self.world
        for step in range(self.next_step, self.steps):
            first = step * self.packs + self.rank * share
            yield from (self.make(pack) for pack in range(first, first + share))


class TinyData(L.LightningDataModule):
    """Stand in for `data.datamodule.MultimodalDataModule`."""

    def __init__(self, steps: int, packs: int, make: Callable[[int], Batch] = tiny_batch, val_packs: int = 0) -> None:
        super().__init__()
        self.steps, self.packs, self.make, self.val_packs = steps, packs, make, val_packs
        self.step = 0

    def train_dataloader(self) -> PackLoader:
        loader = PackLoader(self.make, self.steps, self.packs, self.trainer.global_rank, self.trainer.world_size)
        loader.next_step = self.step
        return loader

    def val_dataloader(self) -> Any:
        return PackLoader(lambda pack: self.make(10_000 + pack), 1, self.val_packs, 0, 1) if self.val_packs else []

    def commit(self, step: int) -> None:
        self.step = step

    def state_dict(self) -> dict[str, Any]:
        return {"next_pack": self.step * self.packs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step = state_dict["next_pack"] // self.packs


def tiny_stage(steps: int, **settings: Any) -> StageConfig:
    """Return a stage that trains everything, with drop path, unless told otherwise."""
    chosen = {
        "name": "stage2",
        "trainable": ("vision", "projector", "language"),
        "max_steps": steps,
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "drop_path_rate": 0.3,
        "checkpoint_every": 3,
        **settings,
    }
    return StageConfig(**chosen)


def tiny_module(stage: StageConfig, seed: int = 7, **optimizer: Any) -> InternVLModule:
    """Wrap a tiny model for a stage."""
    return InternVLModule(
        tiny_model(),
        stage,
        OptimizerConfig(**optimizer),
        SchedulerConfig(),
        seed,
        source_names=SOURCES,
        flops_fn=lambda batch: 1000.0 * batch.num_tokens,
    )


def build(
    run_dir: Path,
    stage: StageConfig,
    data: TinyData,
    *,
    devices: int = 1,
    callbacks: Any = (),
    signals: StopSignals | None = None,
    strategy: str = "ddp",
    **settings: Any,
) -> L.Trainer:
    """Build the trainer of a tiny run as `run.py` does, with everything a real run has."""
    silence_lightning()
    checkpoints = run_dir / "stages" / stage.name
    quiet = CallbacksConfig(progress_bar=False, hang_timeout_s=None)
    parts = build_callbacks(stage, PACKING, run_dir, checkpoints, settings=quiet, signals=signals, journal=True)
    sharded = fsdp2_strategy(devices) if strategy == FSDP2 else None
    return L.Trainer(
        **loop_settings(stage, data.packs, devices),
        accelerator="cpu",
        devices=devices,
        strategy=sharded or (strategy if devices > 1 else "auto"),
        logger=[CsvLog(run_dir)],
        callbacks=[*callbacks, *parts],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=run_dir,
        **settings,
    )


def fit(
    run_dir: Path, stage: StageConfig, data: TinyData, module: InternVLModule | None = None, **settings: Any
) -> Any:
    """Train, or continue from the newest checkpoint in the run folder; return the module."""
    module = module or tiny_module(stage)
    trainer = build(run_dir, stage, data, **settings)
    resume = find_resume(run_dir / "stages" / stage.name)
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    return module


class Slow(L.Callback):
    """Give the killing parent time to hit a step."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, *_: Any) -> None:
        """Wait."""
        time.sleep(self.seconds)


def main() -> None:
    """Train one stage after another and save the final weights."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--packs", type=int, default=2)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--strategy", default="ddp")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--stop-after", type=int, default=0)
    parser.add_argument("--sleep", type=float, default=0.0)
    parser.add_argument("--drop-path", type=float, default=0.3)
    parser.add_argument("--poison-rank", type=int, default=-1)
    parser.add_argument("--signal-rank", type=int, default=-1)
    parser.add_argument("--signal-step", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.WARNING)
    adapted: dict[str, Any] = {"trainable": ("projector",), "lora": LoraConfig(("language",), 4, dropout=0.0)}
    stage = tiny_stage(chosen.steps, drop_path_rate=chosen.drop_path, **(adapted if chosen.lora else {}))
    share = chosen.packs // chosen.devices

    def make(pack: int) -> Batch:
        batch = tiny_batch(pack)
        if chosen.poison_rank >= 0 and pack == 2 * chosen.packs + chosen.poison_rank * share:
            batch.loss_weights[batch.loss_weights > 0] = float("inf")
        return batch

    data = TinyData(chosen.steps, chosen.packs, make, val_packs=2)
    stop = [StopAfter(chosen.stop_after)] if chosen.stop_after else []
    slow = [Slow(chosen.sleep)] if chosen.sleep else []
    told = [Signalled(chosen.signal_rank, chosen.signal_step)] if chosen.signal_rank >= 0 else []
    settings = {
        "devices": chosen.devices,
        "strategy": chosen.strategy,
        "callbacks": [*slow, *stop, *told],
        "val_check_interval": 4 * share,
    }
    # at Adam's usual eps a gradient of rounding noise (key biases) moves a weight as far as a real one
    module = tiny_module(stage, eps=1e-4)
    signals = StopSignals()
    with signals.caught():
        fit(chosen.run_dir, stage, data, module, check_val_every_n_epoch=None, signals=signals, **settings)
    weights = gather_weights(module.model)
    if module.global_rank == 0:
        torch.save(weights, chosen.run_dir / "final.pt")
        print(last_values(chosen.run_dir, ["tokens"]))


class StopAfter(L.Callback):
    """End training early, as a time limit would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Ask Lightning to stop."""
        if trainer.global_step >= self.step:
            trainer.should_stop = True


class Signalled(L.Callback):
    """Send SIGTERM to one rank in the middle of a step."""

    def __init__(self, rank: int, step: int) -> None:
        self.rank, self.step = rank, step

    def on_before_zero_grad(self, trainer: L.Trainer, *_: Any) -> None:
        """Send it to this very process."""
        if trainer.global_rank == self.rank and trainer.global_step + 1 == self.step:
            signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    main()
