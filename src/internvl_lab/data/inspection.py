"""Measure what a stage will read, before it reads it: shares of the mixture, fill of the packs, samples as they go in.

```
Plan ──> Mixture columns ── x repeat ──> sources, kinds (samples, tokens, tiles, shares)
     └─> the first packs ──> fill; the first samples of each kind ── PackDataset ──> Sample, encoded as in training
```

Nothing here encodes more than the shown samples: sizes come from the index, as the plan's do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from internvl_lab.data.batch import Batch
from internvl_lab.data.loader import PackDataset
from internvl_lab.data.mixture import Mixture
from internvl_lab.data.packing import lower_bound
from internvl_lab.data.plan import Pack, Plan
from internvl_lab.data.scan import KINDS
from internvl_lab.data.stream_loader import StreamDataset
from internvl_lab.errors import ConfigError

MAX_PACKS = 4000
"""Packs whose fill is measured at most: about 3 blocks of 8192 samples, planned in seconds."""
KIND_NAMES = {"text": "text", "image": "one image", "multi_image": "several images", "video": "video"}
"""Names of `scan.KINDS` for people."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Share:
    """Hold what one part of the mixture (a source, a kind) brings to an average epoch, `repeat` applied."""

    samples: float
    tokens: float
    tiles: float
    sample_share: float
    token_share: float
    tile_share: float
    """Shares of the whole mixture, 0 to 1."""


@dataclass(frozen=True)
class SourceTable:
    """Hold one source: what its shards hold, what of it is used, and what it brings."""

    share: Share
    found: int
    """Samples in the shards, faulty ones included."""
    used: int
    """Samples in the mixture, each counted once."""
    repeat: float
    weight: float
    max_tiles: int
    jpeg: bool
    skipped: dict[str, int]
    """Reason to number of samples that are left out."""
    unselected: int
    """Samples that `tasks` leaves out."""


@dataclass(frozen=True)
class PackFill:
    """Hold how full the first packs of the stage are; P packs."""

    tokens: Ints
    tiles: Ints
    samples: Ints
    """(P,) of each pack."""
    max_tokens: int
    max_tiles: int
    efficiency: float
    """Lower bound of packs over packs: 1 = no packing of these samples could need fewer."""

    @property
    def summary(self) -> dict[str, float]:
        """Return means: `packs`, `samples_per_pack`, `token_fill`, `tile_fill` (shares of the limits), `efficiency`."""
        return {
            "packs": float(len(self.tokens)),
            "samples_per_pack": float(self.samples.mean()),
            "token_fill": float(self.tokens.mean()) / self.max_tokens,
            "tile_fill": float(self.tiles.mean()) / self.max_tiles,
            "efficiency": self.efficiency,
        }


@dataclass(frozen=True)
class ShownSample:
    """Hold one encoded sample with what a picture of it needs."""

    source: str
    kind: str
    shard: str
    batch: Batch
    """A pack of this sample alone."""
    tiles_per_image: tuple[int, ...]
    """Tiles of each image, thumbnail included; together as many as the sample has."""
    thumbnails: bool
    """Whether the last tile of an image of several tiles is a thumbnail."""


@dataclass
class Inspection:
    """Hold everything that is shown of one stage's data; n samples, M images."""

    stage: str
    mixture: str
    sources: dict[str, SourceTable]
    kinds: dict[str, Share]
    """Name for people to what that kind of sample brings."""
    fill: PackFill
    tokens: Ints
    tiles: Ints
    kind: NDArray[np.int8]
    """(n,) of each used sample; `kind` is a position in `scan.KINDS`."""
    repeat: Floats
    """(n,) how often a sample comes in an average epoch: the weights of the histograms."""
    aspect_ratios: Floats
    """(M,) width / height of each image of a used sample."""
    aspect_repeat: Floats
    """(M,) its weight."""
    shown: list[ShownSample] = field(default_factory=list)
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    """(key, reason, detail) of samples that could not be encoded while looking for samples to show."""

    def totals(self) -> dict[str, float]:
        """Sum samples, tokens and tiles of an average epoch."""
        names = ("samples", "tokens", "tiles")
        return {name: sum(getattr(source.share, name) for source in self.sources.values()) for name in names}

    def to_json(self) -> dict[str, Any]:
        """Return all numbers as plain containers, without the arrays."""
        sources = {name: {**vars(table), "share": vars(table.share)} for name, table in self.sources.items()}
        return {
            "stage": self.stage,
            "mixture": self.mixture,
            "totals": self.totals(),
            "sources": sources,
            "kinds": {name: vars(share) for name, share in self.kinds.items()},
            "fill": self.fill.summary,
            "limits": {"max_tokens": self.fill.max_tokens, "max_tiles": self.fill.max_tiles},
            "tokens": _summary(self.tokens, self.repeat),
            "tiles": _summary(self.tiles, self.repeat),
            "shown": [shown.batch.sample_keys[0] for shown in self.shown],
            "failed": [list(entry) for entry in self.failed],
        }


def inspect_stage(
    dataset: PackDataset | StreamDataset, stage: str, mixture_name: str, num_packs: int, num_shown: int = 12
) -> Inspection:
    """Inspect what `dataset` will deliver.

    Args:
        dataset: the stage's own, from `MultimodalDataModule.train_dataloader`.
        stage, mixture_name: for the headings.
        num_packs: packs of the stage; the fill is measured on the first `MAX_PACKS` of them at most.
        num_shown: encoded samples to return, as different from each other as the mixture allows.
    Raises:
        ConfigError: the mixture is streamed.
    """
    if not isinstance(dataset, PackDataset):
        raise ConfigError(f"data.mixtures.{mixture_name} is streamed: only what has an index can be inspected")
    mixture = dataset.plan.mixture
    repeat = np.array([config.repeat for config in mixture.configs])[mixture.source_id]
    kind = np.concatenate([index.kind[_rows(mixture, i)] for i, index in enumerate(mixture.indexes)])
    ratios, weights = _aspect_ratios(mixture)
    shown, failed = _encode_some(dataset, num_packs, num_shown)
    return Inspection(
        stage=stage,
        mixture=mixture_name,
        sources=_source_tables(mixture, repeat, dataset.encoder.tiling.max_tiles),
        kinds={name: _share(mixture, repeat, kind == KINDS.index(key)) for key, name in KIND_NAMES.items()},
        fill=measure_fill(dataset.plan, min(num_packs, MAX_PACKS)),
        tokens=mixture.tokens,
        tiles=mixture.tiles,
        kind=kind,
        repeat=repeat,
        aspect_ratios=ratios,
        aspect_repeat=weights,
        shown=shown,
        failed=failed,
    )


def measure_fill(plan: Plan, num_packs: int) -> PackFill:
    """Plan the first `num_packs` (from 1) packs and measure how full they are."""
    mixture, limits = plan.mixture, plan.packing
    packs = map(plan.pack, range(num_packs))
    sizes = [[mixture.size_of(i, row, plan.seed, pack.epoch, copy) for i, row, copy in pack.numbered] for pack in packs]
    tokens = np.array([sum(size[0] for size in pack) for pack in sizes])
    tiles = np.array([sum(size[1] for size in pack) for pack in sizes])
    every = np.array([size for pack in sizes for size in pack])
    bound = lower_bound(every[:, 0], every[:, 1], limits.max_tokens, limits.max_tiles)
    counts = np.array([len(pack) for pack in sizes])
    return PackFill(tokens, tiles, counts, limits.max_tokens, limits.max_tiles, bound / num_packs)


def _rows(mixture: Mixture, source_id: int) -> Ints:
    """Return the rows of one source's index that the mixture uses, one a sample; parts of a sample share its row."""
    return mixture.index_rows(source_id, mixture.sample[mixture.source_id == source_id])


def _row(mixture: Mixture, source_id: int, sample: int) -> int:
    """Return the index row of one sample."""
    return int(mixture.index_rows(source_id, np.array([sample]))[0])


def _source_tables(mixture: Mixture, repeat: Floats, max_tiles: int) -> dict[str, SourceTable]:
    """Tabulate every source, in the mixture's order."""
    skipped: dict[str, Counter[str]] = {name: Counter() for name in mixture.source_names}
    for source, _, _, reason, _ in mixture.skipped_samples:
        skipped[source][reason] += 1
    tables = {}
    for i, (name, config, index) in enumerate(zip(mixture.source_names, mixture.configs, mixture.indexes, strict=True)):
        mine = mixture.source_id == i
        found, used = len(index) + len(index.problems), int(mine.sum())
        tables[name] = SourceTable(
            share=_share(mixture, repeat, mine),
            found=found,
            used=used,
            repeat=config.repeat,
            weight=config.weight,
            max_tiles=max_tiles if config.max_tiles is None else config.max_tiles,
            jpeg=config.jpeg,
            skipped=dict(skipped[name]),
            unselected=found - used - skipped[name].total(),
        )
    return tables


def _share(mixture: Mixture, repeat: Floats, mine: NDArray[np.bool_]) -> Share:
    """Sum what the samples `mine` (n,) bring to an average epoch, and relate it to the whole mixture."""
    columns = (np.ones(len(repeat)), mixture.tokens, mixture.tiles)
    sums = [float((column * repeat)[mine].sum()) for column in columns]
    whole = [float((column * repeat).sum()) for column in columns]
    return Share(*sums, *(part / total if total else 0.0 for part, total in zip(sums, whole, strict=True)))


def _aspect_ratios(mixture: Mixture) -> tuple[Floats, Floats]:
    """Return width / height of every image of the used samples, and how often it comes: both (M,)."""
    ratios, weights = [np.zeros(0)], [np.zeros(0)]
    for i, (config, index) in enumerate(zip(mixture.configs, mixture.indexes, strict=True)):
        used = np.zeros(len(index), bool)
        used[_rows(mixture, i)] = True
        images = np.repeat(used, np.diff(index.image_start))
        ratios.append(index.width[images] / index.height[images])
        weights.append(np.full(len(ratios[-1]), config.repeat))
    return np.concatenate(ratios), np.concatenate(weights)


def _encode_some(
    dataset: PackDataset, num_packs: int, num_shown: int
) -> tuple[list[ShownSample], list[tuple[str, str, str]]]:
    """Encode samples in the order of training, one of each (source, kind, task) in turn; also return what failed."""
    groups: dict[tuple[int, int, str], list[tuple[int, int, int]]] = {}
    mixture = dataset.plan.mixture
    for source_id, sample, epoch in _first_samples(dataset.plan, num_packs):
        index, row = mixture.indexes[source_id], _row(mixture, source_id, sample)
        group = groups.setdefault((source_id, int(index.kind[row]), str(index.task[row])), [])
        if len(group) < num_shown:
            group.append((source_id, sample, epoch))
    in_turn = [place for turn in zip_longest(*groups.values()) for place in turn if place is not None]
    shown: list[ShownSample] = []
    failed: list[tuple[str, str, str]] = []
    for source_id, sample, epoch in in_turn:
        if len(shown) == num_shown:
            break
        batch = dataset[0, Pack(epoch, ((source_id, sample),))]
        failed += batch.bad_samples
        if not batch.bad_samples:
            shown.append(_show(dataset, source_id, sample, batch))
    return shown, failed


def _first_samples(plan: Plan, num_packs: int) -> Iterator[tuple[int, int, int]]:
    """Yield (source id, row, epoch) of the samples in the first packs."""
    for number in range(min(num_packs, MAX_PACKS)):
        pack = plan.pack(number)
        for source_id, row in pack.samples:
            yield source_id, row, pack.epoch


def _show(dataset: PackDataset, source_id: int, sample: int, batch: Batch) -> ShownSample:
    """Add to an encoded sample where it comes from and how its tiles belong to its images."""
    mixture, encoder = dataset.plan.mixture, dataset.encoder
    index, config = mixture.indexes[source_id], mixture.configs[source_id]
    row = _row(mixture, source_id, sample)
    kind = KINDS[int(index.kind[row])]
    counts = [1] * batch.num_tiles  # of a video: a tile a frame
    if kind != "video":
        sizes = [(int(index.width[i]), int(index.height[i])) for i in index.images_of(row)]
        tokens = encoder.tokens_per_image(sizes, config.max_tiles, False)
        counts = [count // encoder.tiling.num_visual_tokens for count in tokens]
    return ShownSample(
        source=mixture.source_names[source_id],
        kind=KIND_NAMES[kind],
        shard=mixture.shard_of(source_id, sample),
        batch=batch,
        tiles_per_image=tuple(counts),
        thumbnails=encoder.tiling.use_thumbnail and kind != "video",
    )


def _summary(values: Ints, weights: Floats) -> dict[str, float]:
    """Return mean, median, 95th percentile and maximum of values (n,), each counted `weights` (n,) times."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    quantile = {name: float(values[order][np.searchsorted(reached, q)]) for name, q in (("p50", 0.5), ("p95", 0.95))}
    return {"mean": float(np.average(values, weights=weights)), **quantile, "max": float(values.max())}
