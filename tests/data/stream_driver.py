"""Read a stage's packs in processes that can be killed: a line for every pack, the data state after every step.

Processes come from a fork server that has only imported the modules, so a start costs a second, not ten, and shares
nothing with the test or with another start.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist

from internvl_lab.atomic import write_atomic
from internvl_lab.config import RunConfig, StageConfig
from internvl_lab.data.batch import Batch
from internvl_lab.data.datamodule import MultimodalDataModule
from internvl_lab.data.plan import Cost
from internvl_lab.text import ChatTemplate

Line = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Say what is read; it is handed to every process."""

    cfg: RunConfig
    stage: StageConfig
    template: ChatTemplate
    cost: Cost
    folder: Path

    def module(self, rank: int = 0, world_size: int = 1, num_workers: int = 0) -> MultimodalDataModule:
        """Build the data module of one rank, as far as the committed state."""
        cfg = replace(self.cfg, data=replace(self.cfg.data, num_workers=num_workers))
        module = MultimodalDataModule(cfg, self.stage, self.template, self.cost, self.folder)
        module.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)  # type: ignore[assignment]
        if self.state.exists():
            module.load_state_dict(json.loads(self.state.read_text()))
        return module

    @property
    def state(self) -> Path:
        """Where the state of the last finished step lies."""
        return self.folder / "state.json"

    def next_pack(self) -> int:
        """Count the packs of all finished steps."""
        return int(json.loads(self.state.read_text())["next_pack"]) if self.state.exists() else 0


def describe(batch: Batch) -> Line:
    """Name a pack and everything in it; the hash of the pixels covers the JPEG qualities."""
    parts = (batch.input_ids, batch.labels, batch.loss_weights, batch.cu_seqlens, batch.source_ids)
    text = hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()
    pixels = hashlib.sha256(batch.pixel_values.numpy().tobytes()).hexdigest()
    bad = [entry[0] for entry in batch.bad_samples]
    return {"pack": batch.pack_number, "keys": batch.sample_keys, "bad": bad, "text": text, "pixels": pixels}


def read(job: Job, start: int, rank: int, world_size: int, num_workers: int) -> None:
    """Be one rank of one start: read on from the committed state, commit after every step."""
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # for the workers, as in training: a child inherits its own
    torch.set_num_threads(1)
    if world_size > 1:
        meeting = f"file://{job.folder}/meeting-{start}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    module = job.module(rank, world_size, num_workers)
    loader = module.train_dataloader()
    with (job.folder / f"lines-{start}-{rank}.jsonl").open("w") as lines:
        for number, batch in enumerate(loader, start=1):
            lines.write(json.dumps(describe(batch)) + "\n")
            lines.flush()
            if number % loader.packs_per_rank:
                continue
            if world_size > 1:
                dist.barrier()
            if rank == 0:
                module.commit(batch.pack_number // loader.packs_per_step + 1)
                write_atomic(job.state, json.dumps(module.state_dict()))
            time.sleep(0.003)  # a step of training, so that the killing finds it at work
    if world_size > 1:
        dist.barrier()
        dist.destroy_process_group()


def launch(job: Job, start: int, world_size: int, num_workers: int) -> list[BaseProcess]:
    """Start all ranks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed", "internvl_lab.data.datamodule"])
    ranks = [
        context.Process(target=read, args=(job, start, rank, world_size, num_workers)) for rank in range(world_size)
    ]
    for process in ranks:
        process.start()
    return ranks


def kill_at(job: Job, start: int, ranks: list[BaseProcess], lines: int) -> None:
    """SIGKILL all ranks with their workers as soon as rank 0 has read so many packs."""
    deadline = time.monotonic() + 240
    while len(read_lines(job, start, 0)) < lines:
        assert time.monotonic() < deadline and ranks[0].is_alive(), f"no {lines} packs in start {start}"
        time.sleep(0.001)
    for process in ranks:
        assert process.pid is not None
        os.killpg(process.pid, signal.SIGKILL)
    for process in ranks:
        process.join(30)
        assert process.exitcode == -signal.SIGKILL


def finish(ranks: list[BaseProcess]) -> None:
    """Wait for all ranks to end by themselves."""
    for process in ranks:
        process.join(300)
        assert process.exitcode == 0


def read_lines(job: Job, start: int, rank: int) -> list[Line]:
    """Return the packs that one rank of one start has read; a torn last line is left out."""
    path = job.folder / f"lines-{start}-{rank}.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def committed(job: Job, bounds: list[int], world_sizes: list[int]) -> Iterator[Line]:
    """Join what each start has finished: start i the packs from bounds[i] to bounds[i + 1], in the stream's order."""
    for start, world_size in enumerate(world_sizes):
        lines = [line for rank in range(world_size) for line in read_lines(job, start, rank)]
        finished = [line for line in lines if bounds[start] <= line["pack"] < bounds[start + 1]]
        yield from sorted(finished, key=lambda line: int(line["pack"]))
