"""Load packs: read, encode and join the samples that the plan names.

```
plan ── (k, Pack), planned ahead in a thread ──> stateless workers: pread, encode, collate ──> Batch ──> main
                                                                                    bad samples ──> quarantine ──┘
```

Workers hold no state and the main process hands them the pack to build, so their number changes nothing, and what a
run has consumed is one number. A sample that cannot be read leaves its pack; the pack keeps its place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from internvl_lab.constants import IGNORE_INDEX
from internvl_lab.data.batch import Batch
from internvl_lab.data.encoding import Sample, SampleEncoder
from internvl_lab.data.parent import exit_with_parent, signals_held
from internvl_lab.data.plan import Pack, Plan
from internvl_lab.data.quarantine import QuarantineLog
from internvl_lab.errors import ConfigError, SampleError

__all__ = ["PackDataset", "PackLoader", "QuarantineLog", "collate"]

EMPTY_KEY = "empty-pack"
"""Key of the stand-in in a pack all of whose samples failed."""

D = TypeVar("D")
"""What a loader's workers work with."""
Request = tuple[int, Pack]
"""(pack number, its samples): what the main process asks of a worker."""


class PackDataset(Dataset[Batch]):
    """Build packs on request; stateless, so any worker may build any of them.

    Args:
        plan: says what a pack holds.
        encoder: turns records into samples.
        seed: of the augmentation, non-negative.
        augment: False for validation.
    """

    def __init__(self, plan: Plan, encoder: SampleEncoder, seed: int, augment: bool = True) -> None:
        self.plan, self.encoder, self.seed, self.augment = plan, encoder, seed, augment

    def __getitem__(self, request: int | Request) -> Batch:
        """Build one pack.

        Args:
            request: the pack's number, or (number, pack) where the caller has planned it already.
        Raises:
            ShardError: a shard is missing or shorter than indexed.
        """
        number, pack = (request, self.plan.pack(request)) if isinstance(request, int) else request
        samples, bad = [], []
        for source_id, row, copy in pack.numbered:
            try:
                samples.append(self._load(source_id, row, pack.epoch, copy))
            except SampleError as error:
                bad.append((self.plan.mixture.key_of(source_id, row), error.reason, error.detail))
        if not samples:
            samples = [self._empty(pack.samples[0][0])]
        return collate(samples, number, bad).locate(self.encoder.template.context_id)

    def planned(self, number: int) -> list[tuple[str, str]]:
        """Return (key, shard) of every sample planned for a pack, readable or not."""
        return self.places(self.plan.pack(number))

    def places(self, pack: Pack) -> list[tuple[str, str]]:
        """Return (key, shard) of every sample of a pack."""
        mixture = self.plan.mixture
        return [(mixture.key_of(*sample), mixture.shard_of(*sample)) for sample in pack.samples]

    def _load(self, source_id: int, row: int, epoch: int, copy: int) -> Sample:
        """Read and encode one sample."""
        mixture = self.plan.mixture
        record, images = mixture.read(source_id, row, self.plan.seed, epoch, copy)
        sample = self.encoder.encode(
            record,
            images,
            seed=self.seed,
            epoch=epoch,
            source=mixture.configs[source_id],
            source_id=source_id,
            augment=self.augment,
            copy=copy,
        )
        planned, found = (
            mixture.size_of(source_id, row, self.plan.seed, epoch, copy),
            (len(sample.input_ids), len(sample.tiles)),
        )
        if planned != found:  # would break the limits of the pack
            raise SampleError(record.key, "index_mismatch", f"planned (tokens, tiles) {planned}, found {found}")
        return sample

    def _empty(self, source_id: int) -> Sample:
        """Return one padding token without weight, so that every rank gets its pack."""
        edge = self.encoder.tiling.tile_size
        return Sample(
            key=EMPTY_KEY,
            input_ids=np.array([self.encoder.template.pad_id], np.int32),
            labels=np.array([IGNORE_INDEX], np.int32),
            loss_weights=np.zeros(1, np.float32),
            tiles=np.empty((0, 3, edge, edge), np.uint8),
            source_id=source_id,
            task="",
        )


def collate(samples: list[Sample], number: int, bad_samples: list[tuple[str, str, str]]) -> Batch:
    """Join samples to one pack.

    Args:
        samples: at least one; T tokens and N tiles together.
        number: the pack's place in the stream.
        bad_samples: (key, reason, detail) of those that are missing.
    Returns:
        Shapes as in `Batch`.
    """
    lengths = [len(sample.input_ids) for sample in samples]
    tiles = [torch.from_numpy(sample.tiles) for sample in samples]
    return Batch(
        input_ids=_row([sample.input_ids for sample in samples], np.int64),
        labels=_row([sample.labels for sample in samples], np.int64),
        position_ids=_row([np.arange(length) for length in lengths], np.int64),
        cu_seqlens=torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32),
        max_seqlen=max(lengths),
        loss_weights=_row([sample.loss_weights for sample in samples], np.float32),
        pixel_values=torch.cat(tiles),
        tiles_per_sample=torch.tensor([len(group) for group in tiles], dtype=torch.int32),
        source_ids=torch.tensor([sample.source_id for sample in samples], dtype=torch.int32),
        sample_keys=[sample.key for sample in samples],
        pack_number=number,
        bad_samples=bad_samples,
    )


def _row(parts: list[np.ndarray[Any, Any]], dtype: type) -> Tensor:
    """Concatenate to (1, T)."""
    return torch.from_numpy(np.concatenate(parts).astype(dtype))[None]


class RankLoader(Generic[D]):
    """Number this rank's packs of a run, from a step that can be set, and start the workers that build them.

    Rank r of step s takes packs s * P + r * P/W up to s * P + (r + 1) * P/W: slices that the plan balances.
    The length is that of the whole run, not of the rest: Lightning compares it with its own count of batches.

    Args:
        dataset: builds packs.
        num_steps: optimizer steps of the run.
        packs_per_step: P, over all ranks.
        rank, world_size: r and W.
        num_workers: processes; 0 = load in this one.
        prefetch_factor: packs each worker keeps ready.
        quarantine: gets the bad samples of each pack as it is handed out; None = they are only in the batch.
        pin_memory: copy packs to pinned memory.
    Raises:
        ConfigError: P is not a multiple of W.
    """

    def __init__(
        self,
        dataset: D,
        *,
        num_steps: int,
        packs_per_step: int,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        prefetch_factor: int = 2,
        quarantine: QuarantineLog | None = None,
        pin_memory: bool = False,
    ) -> None:
        if packs_per_step % world_size:
            raise ConfigError(f"packing.packs_per_step={packs_per_step} is not a multiple of {world_size} ranks")
        self.dataset, self.num_steps, self.packs_per_step = dataset, num_steps, packs_per_step
        self.rank, self.world_size = rank, world_size
        self.num_workers, self.prefetch_factor = num_workers, prefetch_factor
        self.quarantine, self.pin_memory = quarantine, pin_memory
        self.next_step = 0
        """Optimizer step with which the next iteration begins."""

    def __len__(self) -> int:
        """Count this rank's packs of the whole run."""
        return self.num_steps * self.packs_per_rank

    @property
    def packs_per_rank(self) -> int:
        """Count this rank's packs of one step (the accumulation)."""
        return self.packs_per_step // self.world_size

    def set_position(self, step: int) -> None:
        """Begin the next iteration at an optimizer step."""
        if not 0 <= step <= self.num_steps:
            raise ConfigError(f"step {step} lies outside the run of {self.num_steps} steps")
        self.next_step = step

    def pack_numbers(self) -> list[int]:
        """List the numbers of this rank's packs from the set position to the end."""
        per_rank = self.packs_per_rank
        firsts = (step * self.packs_per_step + self.rank * per_rank for step in range(self.next_step, self.num_steps))
        return [first + i for first in firsts for i in range(per_rank)]

    def _load(self, dataset: Dataset[Any], sampler: _Requests | None = None) -> Iterator[Any]:
        """Start the workers and return what they build."""
        loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=self.num_workers,
            prefetch_factor=self.prefetch_factor if self.num_workers else None,
            worker_init_fn=_init_worker,
            pin_memory=self.pin_memory,
        )
        with signals_held():
            return iter(loader)


class PackLoader(RankLoader[PackDataset]):
    """Iterate over this rank's packs of a plan; args and raises as `RankLoader`."""

    def __iter__(self) -> Iterator[Batch]:
        """Yield this rank's packs.

        Raises:
            ShardError: a shard is unreadable, or more samples are bad than the quarantine allows.
        """
        for batch in self._load(self.dataset, _Requests(self.dataset.plan, self.pack_numbers())):
            if self.quarantine is not None:
                step = batch.pack_number // self.packs_per_step
                self.quarantine.record(self.dataset.planned(batch.pack_number), batch.bad_samples, step)
            yield batch


class _Requests:
    """Yield (number, pack), planning the next window in a thread while the workers are busy with this one."""

    def __init__(self, plan: Plan, numbers: list[int]) -> None:
        self.plan, self.numbers = plan, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Request]:
        window = -1
        with ThreadPoolExecutor(1, thread_name_prefix="plan") as planner:
            for number in self.numbers:
                pack = self.plan.pack(number)
                if number // self.plan.window_size != window:
                    window = number // self.plan.window_size
                    following = (window + 1) * self.plan.window_size
                    if following <= self.numbers[-1]:
                        planner.submit(self.plan.pack, following)
                yield number, pack


def _init_worker(worker: int) -> None:
    """Keep a worker to one core, from outliving its parent, and from leaving before it."""
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    exit_with_parent()
