"""Choose which samples of one source are used, and make long ones fit where the settings want it.

```
ShardIndex ── tasks, tiles, tokens, frames ──> fits ──────────────────────────> samples
                                           └─> too long ── skip ──────────────> problems
                                                        ├─ truncate_text ─────> samples with max_tokens
                                                        └─ split ─────────────> parts, numbered behind the rows
```

All of it follows from the index: no file is read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from internvl_lab.config import PackingConfig, SourceConfig, TilingConfig
from internvl_lab.data.columns import Ints
from internvl_lab.data.index import ShardIndex
from internvl_lab.data.long_samples import Part, Splitter
from internvl_lab.data.scan import KINDS, Problem
from internvl_lab.data.tiling import count_tiles, tile_budget

_VIDEO = KINDS.index("video")


@dataclass
class Selection:
    """Hold the n usable samples of one source."""

    sample: Ints
    """(n,) int64, rising: a row of the index or, behind these, number of a part."""
    tokens: Ints
    tiles: Ints
    """(n,) int64; of a video, the most that it can have."""
    max_frames: NDArray[np.int32]
    """(n,) the most frames of a video that are drawn and fit; 0 for what is no video."""
    parts: list[tuple[int, Part]] = field(default_factory=list)
    """(row, part) of the samples behind the index's rows, in order."""
    problems: list[Problem] = field(default_factory=list)
    fitted: Counter[str] = field(default_factory=Counter)


def select(
    config: SourceConfig, index: ShardIndex, tiling: TilingConfig, packing: PackingConfig, long_samples: str
) -> Selection:
    """Select the usable samples of one source.

    Args:
        long_samples: what becomes of samples over the limits of `packing`: `skip`, `truncate_text` or `split`.
    """
    max_frames = video_frames(index, config, tiling, packing)
    tiles = np.where(max_frames > 0, max_frames, sample_tiles(index, config, tiling))
    tokens = text_tokens(index, max_frames) + tiles * tiling.num_visual_tokens
    wanted = np.ones(len(index), bool)
    if config.tasks:
        wanted &= np.fromiter((task in config.tasks for task in index.task), bool, len(index))
    selection = Selection(np.zeros(0, np.int64), tokens, tiles, max_frames, problems=list(index.problems))
    too_large = np.flatnonzero(wanted & ((tokens > packing.max_tokens) | (tiles > packing.max_tiles)))
    keep = wanted.copy()
    keep[too_large] = False
    if long_samples == "truncate_text":
        cut = too_large[_can_be_cut(index, tokens, tiles, packing)[too_large] & (max_frames[too_large] == 0)]
        tokens[cut], keep[cut] = packing.max_tokens, True
        selection.fitted.update({"truncated": len(cut)} if len(cut) else {})
        too_large = np.setdiff1d(too_large, cut)
    for row in too_large.tolist():
        if long_samples != "split" or not _split(selection, index, row, config, tiling, packing):
            reason, size, limit = "over_max_tokens", tokens[row], packing.max_tokens
            if size <= limit:
                reason, size, limit = "over_max_tiles", tiles[row], packing.max_tiles
            selection.problems.append(_problem(index, row, index.key[row], reason, f"{size} > {limit}"))
    return _only(selection, np.flatnonzero(keep), len(index))


def video_frames(
    index: ShardIndex, source: SourceConfig, tiling: TilingConfig, packing: PackingConfig
) -> NDArray[np.int32]:
    """Return the most frames of each sample that may be drawn: (N,) int32, 0 for what is no video.

    More than `source.max_frames` never; fewer where they would not fit, but not fewer than `source.min_frames`.
    """
    result = np.zeros(len(index), np.int32)
    rows = np.flatnonzero(index.kind == _VIDEO)
    stored = np.diff(index.image_start)[rows]
    most = np.minimum(stored, source.max_frames)
    least = np.minimum(stored, source.min_frames)
    base = index.text_tokens[rows] - index.frame_tokens[stored]
    cost = index.frame_tokens + np.arange(len(index.frame_tokens)) * tiling.num_visual_tokens
    fitting = np.searchsorted(cost, packing.max_tokens - base, side="right") - 1
    result[rows] = np.clip(np.minimum(fitting, packing.max_tiles), least, most)
    return result


def text_tokens(index: ShardIndex, max_frames: NDArray[np.int32]) -> Ints:
    """Return the text tokens of each sample, of a video with `max_frames` (N,) frames: (N,) int64."""
    result = index.text_tokens.astype(np.int64)
    rows = np.flatnonzero(max_frames)
    stored = np.diff(index.image_start)[rows]
    result[rows] -= index.frame_tokens[stored] - index.frame_tokens[max_frames[rows]]
    return result


def sample_tiles(index: ShardIndex, source: SourceConfig, tiling: TilingConfig) -> Ints:
    """Count the tiles of each sample from its image sizes, as `SampleEncoder` will cut them.

    Returns:
        (N,) int64, thumbnails included; 0 for text, one for each stored frame of a video.
    """
    num_images = np.diff(index.image_start)
    per_image = np.repeat(num_images, num_images)
    is_video = np.repeat(index.kind == _VIDEO, num_images)
    cases = np.stack([index.width, index.height, np.where(is_video, -1, per_image)], axis=1).astype(np.int64)
    unique, inverse = np.unique(cases, axis=0, return_inverse=True)  # real data repeats few sizes very often
    counts = np.array([_image_tiles(w, h, n, source, tiling) for w, h, n in unique.tolist()], dtype=np.int64)
    running = np.concatenate([[0], np.cumsum(counts[inverse.ravel()])]) if len(cases) else np.zeros(1, np.int64)
    result: Ints = running[index.image_start[1:]] - running[index.image_start[:-1]]
    return result


def _image_tiles(width: int, height: int, num_images: int, source: SourceConfig, tiling: TilingConfig) -> int:
    """Count the tiles of one image of a sample with `num_images` (-1: a frame of a video)."""
    if num_images < 0:
        return count_tiles(width, height, tiling, 1, False)
    limit = tiling.max_tiles if source.max_tiles is None else source.max_tiles
    return count_tiles(width, height, tiling, tile_budget(num_images, limit), tiling.use_thumbnail)


def _can_be_cut(index: ShardIndex, tokens: Ints, tiles: Ints, packing: PackingConfig) -> NDArray[np.bool_]:
    """Tell of each sample whether cutting the last answer makes it fit: (N,) bool."""
    least: Ints = tokens - index.text_tokens + index.text_floor
    return (least <= packing.max_tokens) & (tiles <= packing.max_tiles)


def _split(
    selection: Selection,
    index: ShardIndex,
    row: int,
    config: SourceConfig,
    tiling: TilingConfig,
    packing: PackingConfig,
) -> bool:
    """Split one sample into parts; False where none fits. Rounds that fit nowhere are problems of their own."""
    rounds, first_image = index.rounds_of(row), int(index.image_start[row])
    if len(rounds) < 2 or index.kind[row] == _VIDEO:
        return False
    tokens = index.round_tokens[rounds.start : rounds.stop].tolist()

    def tiles_of(first: int, stop: int) -> int:
        """Count the tiles of images that are all a part has."""
        images = range(first_image + first, first_image + stop)
        return sum(_image_tiles(int(index.width[i]), int(index.height[i]), len(images), config, tiling) for i in images)

    parts, unfit = Splitter(
        prefix=int(index.text_tokens[row]) - sum(tokens),
        tokens=tokens,
        lead_tokens=index.lead_tokens[rounds.start : rounds.stop].tolist(),
        images=index.round_images[rounds.start : rounds.stop].tolist(),
        count_tiles=tiles_of,
        max_tokens=packing.max_tokens,
        max_tiles=packing.max_tiles,
        tokens_per_tile=tiling.num_visual_tokens,
    ).split()
    if not parts:
        return False
    selection.parts += [(row, part) for part in parts]
    selection.fitted.update(split=1, parts=len(parts))
    for number in unfit:
        key = f"{index.key[row]}#{number}"
        selection.problems.append(_problem(index, row, key, "over_max_tokens", "this round does not fit even alone"))
    return True


def _problem(index: ShardIndex, row: int, key: str, reason: str, detail: str) -> Problem:
    return index.shard_names[int(index.shard[row])], key, reason, detail


def _only(selection: Selection, rows: Ints, num_rows: int) -> Selection:
    """Keep some rows and add the parts behind them."""
    parts = [part for _, part in selection.parts]
    selection.sample = np.concatenate([rows, num_rows + np.arange(len(parts))])
    selection.tokens = np.concatenate([selection.tokens[rows], np.array([p.tokens for p in parts], np.int64)])
    selection.tiles = np.concatenate([selection.tiles[rows], np.array([p.tiles for p in parts], np.int64)])
    selection.max_frames = np.concatenate([selection.max_frames[rows], np.zeros(len(parts), np.int32)])
    return selection
