"""Read a mixture that cannot be indexed, such as what commands write, from front to back.

```
tars of each source ── shuffled for the epoch, shared out to readers (ranks x workers)
   └─ read_tar ── sources taken in turn by chance ──> window: at most block_size samples and WINDOW_BYTES, in a Spool
        └─ ShardIndex ── Mixture ── Plan ── PackDataset ──> packs of the window, in random order ──> the next window
```

A window is treated as a small indexed data set, so limits, `repeat`, `long_samples`, frames, packing and augmentation
are those of indexed data. It is the shuffle buffer as well: samples mix inside it, tars are shuffled for each epoch.

What a stream promises: in an epoch every sample is read once (and used `repeat` times), whatever the number of ranks
and workers; the same seed, ranks and workers give the same packs. What it does not: steps are not balanced by cost, a
key that comes twice is found inside a window only, and there is no exact resume. A resumed run begins with the next
epoch, in that one's order; what the last one had not reached waits until then.

Measured on 120 samples of the workload of research/data_pipeline, 448 px tiles, one process: 291 to 302 tiles a CPU
second, indexing included, where indexed shards give 306 to 323. Its 20 000 sizes need 2914 packs of 16384 tokens and 48
tiles in windows of 1000 samples, 2898 in blocks of 8192; the lower bound is 2890.

The stream does not end: a reader that has read its part begins its next epoch, for which tars are dealt out anew. So
every rank gets as many packs as the stage has steps, and none waits for another for ever; where parts are unequal,
readers are some epochs apart.
"""

from __future__ import annotations

import random
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from internvl_lab.config import SourceConfig
from internvl_lab.data.scan import Problem
from internvl_lab.data.spool import Spool
from internvl_lab.data.tar_stream import read_tar

WINDOW_BYTES = 256 * 10**6
"""Most bytes of a window, some 1000 samples with a photo each; they lie in TMPDIR, one window a worker."""


@dataclass(frozen=True)
class StreamSource:
    """Name the tars of one source of a streamed mixture."""

    name: str
    config: SourceConfig
    tars: tuple[str, ...]
    """Paths, URLs or commands, see `locations.locate_streams`."""


class Reader(NamedTuple):
    """Number one of the processes that share a stream."""

    number: int
    total: int


class Part(NamedTuple):
    """Say what a reader takes of one tar: samples `first`, `first + step`, ..."""

    tar: str
    first: int
    step: int


@dataclass
class Window:
    """Hold a stretch of one reader's stream."""

    seed: int
    spool: Spool = field(default_factory=Spool)
    faults: list[Problem] = field(default_factory=list)
    """What `read_tar` found wrong."""
    num_usable: int = 0
    """Samples that the settings take, each counted once; whoever works on the window fills it in."""


def share_out(tars: Sequence[str], reader: Reader) -> list[Part]:
    """Return the parts of a reader; those of all readers are every tar once.

    With fewer tars than readers, several read the same tar and take its samples in turn: then what a command writes
    has to be the same each time.
    """
    if len(tars) >= reader.total:
        return [Part(tar, 0, 1) for tar in tars[reader.number :: reader.total]]
    first, tar = divmod(reader.number, len(tars))
    return [Part(tars[tar], first, len(range(tar, reader.total, len(tars))))]


def read_windows(
    sources: Sequence[StreamSource], seed: int, epoch: int, reader: Reader, max_samples: int
) -> Iterator[Window]:
    """Yield one reader's part of an epoch in windows; each is closed when the next one is asked for.

    Args:
        max_samples: of a window.
    Raises:
        ShardError: a tar cannot be read to its end, see `read_tar`.
    """
    faults: list[Problem] = []
    readings = [_Reading(number, source, seed, epoch, reader, faults) for number, source in enumerate(sources)]
    chance = random.Random(f"{seed}/{epoch}/{reader.number}")
    stream = _in_turn(readings, chance)
    more = True
    while more:
        window, more = Window(chance.getrandbits(32), faults=faults), False
        try:
            for sample in stream:
                window.spool.add(*sample)
                if window.spool.num_samples >= max_samples or window.spool.num_bytes >= WINDOW_BYTES:
                    more = True
                    break
            if window.spool.num_samples:
                yield window
        finally:
            window.spool.close()
        faults.clear()


Streamed = tuple[int, str, str, dict[str, bytes]]
"""(number of the source, tar, key, {suffix: bytes})."""


class _Reading:
    """Read one source's parts of an epoch, tar after tar."""

    def __init__(
        self, number: int, source: StreamSource, seed: int, epoch: int, reader: Reader, faults: list[Problem]
    ) -> None:
        rng = np.random.default_rng([seed, epoch, zlib.crc32(source.name.encode())])
        shuffled = [source.tars[tar] for tar in rng.permutation(len(source.tars))]
        self.number, self.faults = number, faults
        self._parts = deque(share_out(shuffled, reader))
        self._samples = self._read()

    @property
    def left(self) -> float:
        """Measure what is left, in tars, the one in hand included."""
        return sum(1 / part.step for part in self._parts)

    def next(self) -> Streamed | None:
        """Return the next sample; None at the end."""
        return next(self._samples, None)

    def _read(self) -> Iterator[Streamed]:
        while self._parts:
            tar, first, step = self._parts[0]
            found: list[Problem] = []
            for place, (key, members) in enumerate(read_tar(tar, found)):
                if place % step == first:
                    self.faults += found  # of other readers' samples, these tell
                    yield self.number, tar, key, members
                found.clear()
            self._parts.popleft()


def _in_turn(readings: list[_Reading], chance: random.Random) -> Iterator[Streamed]:
    """Yield samples of all sources, each as often as it has tars left, so that they end at about the same time."""
    while readings:
        (reading,) = chance.choices(readings, [reading.left for reading in readings])
        sample = reading.next()
        if sample is None:
            readings = [other for other in readings if other is not reading]
        else:
            yield sample
