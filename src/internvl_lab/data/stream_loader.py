"""Load the packs of a stream, in processes that each read a part of it.

```
worker: read_windows ── index, Mixture, Plan ── PackDataset ──> StreamedPack ──> main: quarantine, number ──> Batch
```

Unlike those of `loader`, these workers hold state: which tar they read, and the window they work on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from internvl_lab.config import PackingConfig, SourceConfig
from internvl_lab.data.batch import Batch
from internvl_lab.data.encoding import SampleEncoder
from internvl_lab.data.index import ShardIndex
from internvl_lab.data.loader import PackDataset, RankLoader
from internvl_lab.data.mixture import Mixture
from internvl_lab.data.plan import Cost, Pack, Plan
from internvl_lab.data.scan import Problem
from internvl_lab.data.stream import Reader, StreamSource, Window, read_windows
from internvl_lab.errors import ConfigError, InternVLLabError, ShardError


@dataclass
class StreamedPack:
    """Bring one pack to the main process, with what it should know about it."""

    epoch: int
    batch: Batch | None = None
    """None = a report without a pack."""
    planned: list[tuple[str, str]] = field(default_factory=list)
    """(key, shard) of every sample that was read for it, good or bad."""
    bad_samples: list[tuple[str, str, str]] = field(default_factory=list)
    """(key, reason, detail) of the bad ones, in the same order."""
    left_out: list[Problem] = field(default_factory=list)
    """Sound samples that the settings leave out, because they are too long."""
    error: str = ""
    """What ends the stream. As text: torch would wrap an exception into the lines of its traceback."""

    def pin_memory(self) -> StreamedPack:
        """Return it with the batch in pinned memory (torch's DataLoader calls this)."""
        return self if self.batch is None else replace(self, batch=self.batch.pin_memory())


class StreamDataset:
    """Read, pack and encode this process's part of a stream, without end.

    Args:
        sources: in the order of the mixture.
        encoder: turns records into samples.
        packing, long_samples, cost: as for `Mixture` and `Plan`.
        seed: of order and augmentation, non-negative.
        rank, world_size: of the main process.
        first_epoch: epoch to begin with.
    """

    def __init__(
        self,
        sources: Sequence[StreamSource],
        encoder: SampleEncoder,
        packing: PackingConfig,
        cost: Cost,
        seed: int,
        *,
        long_samples: str = "skip",
        rank: int = 0,
        world_size: int = 1,
        first_epoch: int = 0,
    ) -> None:
        self.sources, self.encoder, self.packing, self.cost, self.seed = tuple(sources), encoder, packing, cost, seed
        self.long_samples, self.rank, self.world_size, self.first_epoch = long_samples, rank, world_size, first_epoch

    def __iter__(self) -> Iterator[StreamedPack]:
        """Yield packs and, as the last of all, an error."""
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        reader = Reader(self.rank * workers + number, self.world_size * workers)
        try:
            for epoch in count(self.first_epoch):
                yield from self.read_epoch(epoch, reader)
        except InternVLLabError as error:
            yield StreamedPack(epoch, error=str(error))

    def read_epoch(self, epoch: int, reader: Reader) -> Iterator[StreamedPack]:
        """Yield the packs of one reader's part of an epoch.

        Raises:
            ShardError: a tar cannot be read to its end, or the part holds no usable sample.
        """
        usable = 0
        for window in read_windows(self.sources, self.seed, epoch, reader, self.packing.block_size):
            yield from self._read_window(window, epoch)
            usable += window.num_usable
        if not usable:
            names = ", ".join(source.name for source in self.sources)
            raise ShardError(
                f"the stream of {names} holds no usable sample for reader {reader.number + 1} of {reader.total} (ranks "
                "x data.num_workers): use fewer workers, or see quarantine.jsonl and the log for what was left out"
            )

    def _read_window(self, window: Window, epoch: int) -> Iterator[StreamedPack]:
        """Yield the packs of a window, its faults spread over them; without a pack, a report of the faults."""
        sources, problems = self._index(window)
        packs: list[Pack] = []
        with suppress(ConfigError):  # nothing usable; the log says why
            mixture = Mixture(sources, self.encoder.tiling, self.packing, self.long_samples)
            plan = Plan(mixture, self.packing, window.seed, self.cost, packs_per_step=1)
            packs, window.num_usable = list(plan.epoch_packs(epoch)), len(mixture)
        if not packs:
            yield StreamedPack(epoch, planned=_places(problems), bad_samples=_reasons(problems))
            return
        dataset = PackDataset(plan, self.encoder, self.seed)
        names = [source.name for source in self.sources]
        source_ids = torch.tensor([names.index(name) for name in sources], dtype=torch.int32)
        for number, pack in enumerate(packs):
            batch, faulty = dataset[0, pack], problems[number :: len(packs)]
            bad = _reasons(faulty) + batch.bad_samples
            batch = replace(batch, source_ids=source_ids[batch.source_ids], bad_samples=bad)
            planned = _places(faulty) + dataset.places(pack)
            left_out = [] if number else [problem[1:] for problem in mixture.skipped_samples]
            yield StreamedPack(epoch, batch, planned, bad, left_out)

    def _index(self, window: Window) -> tuple[dict[str, tuple[SourceConfig, ShardIndex]], list[Problem]]:
        """Index a window: (the sources that it holds samples of, what is wrong with others)."""
        sources, problems = {}, list(window.faults)
        for number, source in enumerate(self.sources):
            index = window.spool.index(number, self.encoder.template)
            if index is not None:
                problems += index.problems
                sources[source.name] = (source.config, replace(index, problems=[]))
        return sources, problems


class StreamLoader(RankLoader[StreamDataset]):
    """Iterate over this rank's packs of a run; which samples they hold depends on the number of ranks and workers.

    Args and raises: as `RankLoader`; the position counts steps and chooses no samples, see `StreamDataset`.
    """

    def __init__(self, dataset: StreamDataset, **settings: Any) -> None:
        super().__init__(dataset, **settings)
        self.epoch = dataset.first_epoch - 1
        """The latest epoch of which a pack has been handed out."""

    def __iter__(self) -> Iterator[Batch]:
        """Yield this rank's packs.

        Raises:
            ShardError: a stream has failed, or more samples are bad than the quarantine allows.
        """
        packs: Iterator[StreamedPack] = self._load(_Iterable(self.dataset))
        for number in self.pack_numbers():
            yield self._next(packs, number)

    def _next(self, packs: Iterator[StreamedPack], number: int) -> Batch:
        """Account for reports until there is a pack, and number it."""
        for pack in packs:
            if pack.error:
                raise ShardError(pack.error)
            self.epoch = max(self.epoch, pack.epoch)
            if self.quarantine is not None:
                step = number // self.packs_per_step
                self.quarantine.record(pack.planned, pack.bad_samples, step)
                self.quarantine.leave_out(pack.left_out, step)
            if pack.batch is not None:
                return replace(pack.batch, pack_number=number)
        raise ShardError("a stream has ended before the run")


class _Iterable(IterableDataset[StreamedPack]):
    """Show a stream to torch; `StreamLoader.dataset` is none: Lightning would doubt the loader's length."""

    def __init__(self, dataset: StreamDataset) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[StreamedPack]:
        return iter(self.dataset)


def _places(problems: Sequence[Problem]) -> list[tuple[str, str]]:
    """Return (key, shard) of each."""
    return [(key, shard) for shard, key, _, _ in problems]


def _reasons(problems: Sequence[Problem]) -> list[tuple[str, str, str]]:
    """Return (key, reason, detail) of each."""
    return [(key, reason, detail) for _, key, reason, detail in problems]
