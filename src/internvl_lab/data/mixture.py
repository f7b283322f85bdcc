"""Join sources into one table of samples with the room each needs in a pack, and order it for an epoch.

```
{name: (SourceConfig, ShardIndex)} ──> columns source_id, sample, tokens, tiles
                                         ├─ epoch_samples(seed, epoch) ──> order, for the plan
                                         └─ read(source, sample, seed, epoch) ──> Record and images, for the loader
```

A sample is a row of its source's index or, with numbers from there on, a part of a row that was split. How many frames
a video gives is drawn anew in each epoch; `sizes` says what that costs, the columns hold the most it can cost.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from internvl_lab.config import PackingConfig, SourceConfig, TilingConfig
from internvl_lab.data.columns import Ints
from internvl_lab.data.frames import draw_count, draw_frames, frame_rng, keep_frames
from internvl_lab.data.index import ShardIndex
from internvl_lab.data.long_samples import Part, part_key, part_record
from internvl_lab.data.records import Record, parse_line, parse_record
from internvl_lab.data.selection import Selection, select
from internvl_lab.errors import ConfigError

logger = logging.getLogger(__name__)

MAX_LOGGED_KEYS = 20
"""Keys named in the log for each source; `skipped_samples` lists all."""


class Mixture:
    """Hold all usable samples of all sources; position p in the columns names a sample everywhere in `data`.

    Args:
        sources: name to settings and index; the order gives the source ids.
        tiling: how many tiles an image becomes and how many tokens a tile.
        packing: samples over its limits are left out, or made to fit.
        long_samples: `skip`, `truncate_text` or `split`, see `long_samples`.
    Raises:
        ConfigError: no source, or no usable sample at all.
    """

    source_id: NDArray[np.int32]
    """(n,) position in `source_names`."""
    sample: NDArray[np.int64]
    """(n,) number of the sample in its source: a row of the index, or behind these, a part."""
    tokens: NDArray[np.int64]
    """(n,) tokens of the sample, visual ones included; of a video, the most that it can have."""
    tiles: NDArray[np.int64]
    """(n,) tiles of the sample, thumbnails included; of a video, the most that it can have."""
    max_frames: NDArray[np.int32] | None = None
    """(n,) the most frames of a video that fit, 0 for what is no video; None = there is no video at all."""

    def __init__(
        self,
        sources: Mapping[str, tuple[SourceConfig, ShardIndex]],
        tiling: TilingConfig,
        packing: PackingConfig,
        long_samples: str = "skip",
    ) -> None:
        self.source_names = tuple(sources)
        self.configs = tuple(config for config, _ in sources.values())
        self.indexes = tuple(index for _, index in sources.values())
        self.tiling, self.max_tokens = tiling, packing.max_tokens
        self.skipped: Counter[str] = Counter()
        """Reason to number of samples left out: problems of the index, `over_max_tokens`, `over_max_tiles`."""
        self.skipped_samples: list[tuple[str, str, str, str, str]] = []
        """(source, shard, key, reason, detail) of each."""
        self.fitted: Counter[str] = Counter()
        """What was made to fit: `truncated` samples, `split` samples, and the `parts` that these became."""
        selections = [
            select(*pair, tiling, packing, long_samples) for pair in zip(self.configs, self.indexes, strict=True)
        ]
        for name, selection in zip(self.source_names, selections, strict=True):
            self._note(name, selection)
        if not any(len(selection.sample) for selection in selections):
            raise ConfigError(f"the mixture of sources {', '.join(self.source_names) or '(none)'} has no usable sample")
        self.source_id = np.repeat(np.arange(len(selections), dtype=np.int32), [len(s.sample) for s in selections])
        self.sample = np.concatenate([selection.sample for selection in selections])
        self.tokens = np.concatenate([selection.tokens for selection in selections])
        self.tiles = np.concatenate([selection.tiles for selection in selections])
        frames = np.concatenate([selection.max_frames for selection in selections])
        self.max_frames = frames if frames.any() else None
        self._parts = tuple(selection.parts for selection in selections)
        content = [[name, index.fingerprint] for name, index in zip(self.source_names, self.indexes, strict=True)]
        self.fingerprint = hash16(content)
        """Hash of the content of all sources."""
        policy = [] if long_samples == "skip" else [long_samples, packing.max_tokens, packing.max_tiles]
        policy += ["copies"] if any(config.repeat > 1 for config in self.configs) else []  # they once looked the same
        settings = [source_settings(config) for config in self.configs]
        self.settings_fingerprint = hash16([*settings, asdict(tiling), *policy])
        """Hash of how the sources are used (not where they lie)."""

    def __len__(self) -> int:
        """Count the usable samples n."""
        return len(self.sample)

    def epoch_samples(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Order the samples of one epoch.

        Each source gives every sample floor(repeat) times and the fraction of a further round, drawn at random, so
        that each sample appears `repeat` times on average. A round runs through the source's shards in a shuffled
        order; the sources are interleaved evenly. So neighbours come from few shards (fast reading) while any stretch
        of the epoch holds the mixture's proportions; the plan shuffles within its blocks.

        Returns:
            (m,) int64 positions in the columns; the same for the same arguments on every machine.
        """
        streams, places = [], []
        for i, name in enumerate(self.source_names):
            rng = np.random.default_rng([seed, epoch, zlib.crc32(name.encode())])
            stream = self._source_stream(i, rng)
            streams.append(stream)
            places.append((np.arange(len(stream)) + rng.random(len(stream))) / max(1, len(stream)))
        order = np.argsort(np.concatenate(places), kind="stable")
        return np.concatenate(streams)[order]

    def sizes(
        self, positions: Ints, seed: int, epoch: int, copies: NDArray[np.integer] | None = None
    ) -> tuple[Ints, Ints]:
        """Return (tokens, tiles) of samples in one epoch.

        Args:
            positions: (n,) positions in the columns.
            copies: (n,) which appearance in the epoch is meant, see `copy_numbers`; None = the first.
        Returns:
            Two arrays (n,), exactly what encoding the result of `read` gives.
        """
        tokens, tiles = self.tokens[positions], self.tiles[positions]
        if self.max_frames is not None:
            for place in np.flatnonzero(self.max_frames[positions]).tolist():
                copy = 0 if copies is None else int(copies[place])
                tokens[place], tiles[place] = self._video_size(int(positions[place]), seed, epoch, copy)
        return tokens, tiles

    def size_of(self, source_id: int, sample: int, seed: int = 0, epoch: int = 0, copy: int = 0) -> tuple[int, int]:
        """Return (tokens, tiles) that the plan expects of a sample in an epoch."""
        tokens, tiles = self.sizes(np.array([self._position(source_id, sample)]), seed, epoch, np.array([copy]))
        return int(tokens[0]), int(tiles[0])

    def read(self, source_id: int, sample: int, seed: int, epoch: int, copy: int = 0) -> tuple[Record, list[bytes]]:
        """Read a sample as an epoch shows it: (record, the bytes of its images in placeholder order).

        Raises:
            SampleError: its JSON is not what was indexed.
            ShardError: its shard is missing or shorter than indexed.
        """
        index = self.indexes[source_id]
        row, part = self._locate(source_id, sample)
        key, images = index.key[row], list(index.images_of(row))
        raw = parse_line(index.read_json(row), key)
        low, high = self._frame_limits(self._position(source_id, sample))
        if high:
            frames = draw_frames(len(images), low, high, frame_rng(seed, epoch, key, copy))
            raw, images = keep_frames(raw, frames), [images[frame] for frame in frames]
        record = parse_record(raw, key, len(images))
        if part is not None:
            record, images = part_record(record, part), images[part.first_image : part.stop_image]
        elif self.fitted["truncated"]:
            record = replace(record, max_tokens=self.max_tokens)
        return record, [index.read_image(row, image) for image in images]

    def key_of(self, source_id: int, sample: int) -> str:
        """Return a sample's key."""
        row, part = self._locate(source_id, sample)
        key = self.indexes[source_id].key[row]
        return key if part is None else part_key(key, part)

    def shard_of(self, source_id: int, sample: int) -> str:
        """Return the path or URL of the shard that holds a sample."""
        index, (row, _) = self.indexes[source_id], self._locate(source_id, sample)
        return index.shard_set.location(int(index.shard[row]))

    def index_rows(self, source_id: int, samples: Ints) -> Ints:
        """Return the rows of the source's index that samples (n,) come from: (n,); those of parts come again."""
        num_rows, parts = len(self.indexes[source_id]), self._parts[source_id]
        if not parts:
            return samples
        parents = np.array([row for row, _ in parts])
        rows: Ints = np.where(samples < num_rows, samples, parents[np.maximum(samples - num_rows, 0)])
        return rows

    def describe(self) -> dict[str, dict[str, int]]:
        """Sum samples, tokens and tiles of each source (one round, without `repeat`)."""
        table = {}
        for i, name in enumerate(self.source_names):
            mine = self.source_id == i
            values = {"samples": mine.sum(), "tokens": self.tokens[mine].sum(), "tiles": self.tiles[mine].sum()}
            table[name] = {column: int(value) for column, value in values.items()}
        return table

    def _source_stream(self, source_id: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Concatenate the rounds of one source: positions in the columns."""
        mine = np.flatnonzero(self.source_id == source_id)
        shard = self.indexes[source_id].shard[self.index_rows(source_id, self.sample[mine])]
        whole, fraction = divmod(self.configs[source_id].repeat, 1.0)
        drawn = int(len(mine) * fraction + rng.random())  # rounds up as often as the fraction demands: exact on average
        rounds = [np.arange(len(mine))] * int(whole) + [np.sort(rng.permutation(len(mine))[:drawn])]
        return np.concatenate([mine[_by_shuffled_shard(part, shard, rng)] for part in rounds])

    def _locate(self, source_id: int, sample: int) -> tuple[int, Part | None]:
        """Return (row of the index, part of it that the sample is)."""
        num_rows = len(self.indexes[source_id])
        return (sample, None) if sample < num_rows else self._parts[source_id][sample - num_rows]

    def _position(self, source_id: int, sample: int) -> int:
        """Return where a sample stands in the columns."""
        start, stop = np.searchsorted(self.source_id, [source_id, source_id + 1])
        return int(start + np.searchsorted(self.sample[start:stop], sample))

    def _frame_limits(self, position: int) -> tuple[int, int]:
        """Return the fewest and most frames that may be drawn for a video; 0 and 0 for what is none."""
        most = 0 if self.max_frames is None else int(self.max_frames[position])
        return min(self.configs[self.source_id[position]].min_frames, most), most

    def _video_size(self, position: int, seed: int, epoch: int, copy: int) -> tuple[int, int]:
        """Return (tokens, tiles) of a video in one epoch."""
        index, row = self.indexes[self.source_id[position]], int(self.sample[position])
        stored, (low, most) = len(index.images_of(row)), self._frame_limits(position)
        count = draw_count(stored, low, most, frame_rng(seed, epoch, index.key[row], copy))
        saved, fewer = int(index.frame_tokens[most]) - int(index.frame_tokens[count]), most - count
        tokens = int(self.tokens[position]) - saved - fewer * self.tiling.num_visual_tokens
        return tokens, int(self.tiles[position]) - fewer

    def _note(self, name: str, selection: Selection) -> None:
        """Count and log what one source leaves out or changes."""
        found = [(name, *problem) for problem in selection.problems]
        for _, shard, key, reason, detail in found[:MAX_LOGGED_KEYS]:
            logger.warning("source %s: sample %s in %s is left out: %s (%s)", name, key, shard, reason, detail)
        if len(found) > MAX_LOGGED_KEYS:
            logger.warning("source %s: %d samples are left out in all", name, len(found))
        self.skipped_samples += found
        self.skipped.update(reason for _, _, _, reason, _ in found)
        self.fitted.update(selection.fitted)
        if selection.fitted:
            logger.warning("source %s: long samples made to fit: %s", name, dict(selection.fitted))


def hash16(value: object) -> str:
    """Hash a JSON-able value to 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def copy_numbers(order: Ints) -> NDArray[np.int16]:
    """Number the appearances of each sample in an epoch: 0 for its first, 1 for its second, ...

    Args:
        order: (m,) positions, as `Mixture.epoch_samples` gives them.
    Returns:
        (m,) int16.
    """
    copies = np.zeros(len(order), np.int16)
    if len(order) == 0 or np.bincount(order).max() == 1:
        return copies
    by_position = np.argsort(order, kind="stable")
    begins = np.flatnonzero(np.diff(order[by_position], prepend=-1))
    lengths = np.diff(begins, append=len(order))
    copies[by_position] = np.arange(len(order)) - np.repeat(begins, lengths)
    return copies


def _by_shuffled_shard(
    rows: NDArray[np.int64], shard: NDArray[np.int32], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Sort rows by a random order of their shards; inside a shard they stay in order."""
    rank = rng.permutation(int(shard.max()) + 1) if len(shard) else np.zeros(0, np.int64)
    return rows[np.argsort(rank[shard[rows]], kind="stable")]


def source_settings(config: SourceConfig) -> dict[str, object]:
    """Return how a source is used, without where it lies and how it is read."""
    return {key: value for key, value in asdict(config).items() if key not in ("shards", "stream")}
