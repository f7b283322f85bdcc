"""Join sources into one table of samples with the room each needs in a pack, and order it for an epoch.

```
{name: (SourceConfig, ShardIndex)} ──> columns source_id, sample, tokens, tiles ── epoch_samples(seed, epoch) ──> order
```
"""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from internvl_lab.config import PackingConfig, SourceConfig, TilingConfig
from internvl_lab.data.index import ShardIndex
from internvl_lab.data.scan import KINDS
from internvl_lab.data.tiling import count_tiles, tile_budget
from internvl_lab.errors import ConfigError

logger = logging.getLogger(__name__)

MAX_LOGGED_KEYS = 20
"""Keys named in the log for each source; `skipped_samples` lists all."""
_VIDEO = KINDS.index("video")


class Mixture:
    """Hold all usable samples of all sources; position p in the columns names a sample everywhere in `data`.

    Args:
        sources: name to settings and index; the order gives the source ids.
        tiling: how many tiles an image becomes and how many tokens a tile.
        packing: samples over its limits are left out.
    Raises:
        ConfigError: no source, or no usable sample at all.
    """

    source_id: NDArray[np.int32]
    """(n,) position in `source_names`."""
    sample: NDArray[np.int64]
    """(n,) row in the source's index."""
    tokens: NDArray[np.int64]
    """(n,) tokens of the sample, visual ones included."""
    tiles: NDArray[np.int64]
    """(n,) tiles of the sample, thumbnails included."""

    def __init__(
        self, sources: Mapping[str, tuple[SourceConfig, ShardIndex]], tiling: TilingConfig, packing: PackingConfig
    ) -> None:
        self.source_names = tuple(sources)
        self.configs = tuple(config for config, _ in sources.values())
        self.indexes = tuple(index for _, index in sources.values())
        self.skipped: Counter[str] = Counter()
        """Reason to number of samples left out: problems of the index, `over_max_tokens`, `over_max_tiles`."""
        self.skipped_samples: list[tuple[str, str, str, str, str]] = []
        """(source, shard, key, reason, detail) of each."""
        parts = [self._select(i, tiling, packing) for i in range(len(self.source_names))]
        if not any(len(rows) for rows, _, _ in parts):
            raise ConfigError(f"the mixture of sources {', '.join(self.source_names) or '(none)'} has no usable sample")
        self.source_id = np.concatenate([np.full(len(rows), i, np.int32) for i, (rows, _, _) in enumerate(parts)])
        self.sample = np.concatenate([rows for rows, _, _ in parts])
        self.tokens = np.concatenate([tokens for _, tokens, _ in parts])
        self.tiles = np.concatenate([tiles for _, _, tiles in parts])
        content = [[name, index.fingerprint] for name, index in zip(self.source_names, self.indexes, strict=True)]
        self.fingerprint = hash16(content)
        """Hash of the content of all sources."""
        self.settings_fingerprint = hash16([_settings(config) for config in self.configs] + [asdict(tiling)])
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

    def size_of(self, source_id: int, sample: int) -> tuple[int, int]:
        """Return (tokens, tiles) that the plan expects of a sample."""
        start, stop = np.searchsorted(self.source_id, [source_id, source_id + 1])
        position = start + int(np.searchsorted(self.sample[start:stop], sample))
        return int(self.tokens[position]), int(self.tiles[position])

    def key_of(self, source_id: int, sample: int) -> str:
        """Return a sample's key."""
        return str(self.indexes[source_id].key[sample])

    def shard_of(self, source_id: int, sample: int) -> str:
        """Return the path of the shard that holds a sample."""
        index = self.indexes[source_id]
        return str(index.folder / index.shard_names[int(index.shard[sample])])

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
        shard = self.indexes[source_id].shard[self.sample[mine]]
        whole, fraction = divmod(self.configs[source_id].repeat, 1.0)
        drawn = int(len(mine) * fraction + rng.random())  # rounds up as often as the fraction demands: exact on average
        rounds = [np.arange(len(mine))] * int(whole) + [np.sort(rng.permutation(len(mine))[:drawn])]
        return np.concatenate([mine[_by_shuffled_shard(part, shard, rng)] for part in rounds])

    def _select(
        self, source_id: int, tiling: TilingConfig, packing: PackingConfig
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return (rows, tokens, tiles) of the usable samples of one source; the others are counted and named."""
        name, config, index = self.source_names[source_id], self.configs[source_id], self.indexes[source_id]
        found = [(name, shard, key, reason, detail) for shard, key, reason, detail in index.problems]
        tiles = sample_tiles(index, config, tiling)
        tokens = index.text_tokens + tiles * tiling.num_visual_tokens
        wanted = np.isin(index.task, config.tasks) if config.tasks else np.ones(len(index), bool)
        for reason, size, limit in (
            ("over_max_tokens", tokens, packing.max_tokens),
            ("over_max_tiles", tiles, packing.max_tiles),
        ):
            for row in np.flatnonzero(wanted & (size > limit)):
                shard = index.shard_names[int(index.shard[row])]
                found.append((name, shard, str(index.key[row]), reason, f"{size[row]} > {limit}"))
            wanted &= size <= limit
        for _, shard, key, reason, detail in found[:MAX_LOGGED_KEYS]:
            logger.warning("source %s: sample %s in %s is left out: %s (%s)", name, key, shard, reason, detail)
        if len(found) > MAX_LOGGED_KEYS:
            logger.warning("source %s: %d samples are left out in all", name, len(found))
        self.skipped_samples += found
        self.skipped.update(reason for _, _, _, reason, _ in found)
        rows = np.flatnonzero(wanted)
        return rows, tokens[rows], tiles[rows]


def sample_tiles(index: ShardIndex, source: SourceConfig, tiling: TilingConfig) -> NDArray[np.int64]:
    """Count the tiles of each sample from its image sizes, as `SampleEncoder` will cut them.

    Returns:
        (N,) int64, thumbnails included; 0 for text.
    """
    num_images = np.diff(index.image_start)
    per_image = np.repeat(num_images, num_images)
    is_video = np.repeat(index.kind == _VIDEO, num_images)
    limit = tiling.max_tiles if source.max_tiles is None else source.max_tiles
    cases = np.stack([index.width, index.height, np.where(is_video, -1, per_image)], axis=1).astype(np.int64)
    unique, inverse = np.unique(cases, axis=0, return_inverse=True)  # real data repeats few sizes very often
    counts = np.array([_image_tiles(w, h, n, limit, tiling) for w, h, n in unique.tolist()], dtype=np.int64)
    running = np.concatenate([[0], np.cumsum(counts[inverse.ravel()])]) if len(cases) else np.zeros(1, np.int64)
    result: NDArray[np.int64] = running[index.image_start[1:]] - running[index.image_start[:-1]]
    return result


def hash16(value: object) -> str:
    """Hash a JSON-able value to 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _image_tiles(width: int, height: int, num_images: int, max_tiles: int, tiling: TilingConfig) -> int:
    """Count the tiles of one image of a sample with `num_images` (-1: a frame of a video)."""
    if num_images < 0:
        return count_tiles(width, height, tiling, 1, False)
    return count_tiles(width, height, tiling, tile_budget(num_images, max_tiles), tiling.use_thumbnail)


def _by_shuffled_shard(
    rows: NDArray[np.int64], shard: NDArray[np.int32], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Sort rows by a random order of their shards; inside a shard they stay in order."""
    rank = rng.permutation(int(shard.max()) + 1) if len(shard) else np.zeros(0, np.int64)
    return rows[np.argsort(rank[shard[rows]], kind="stable")]


def _settings(config: SourceConfig) -> dict[str, object]:
    """Return a source's settings without its place on disk."""
    return {key: value for key, value in asdict(config).items() if key != "shards"}
