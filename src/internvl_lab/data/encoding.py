"""Encode one record with its image bytes into one sample: the whole work of a loader worker.

::

    image bytes ── decode_pixels ─> RGB ── tile_image ──> (N, S, S, 3) ── jpeg_augment ──> tiles (N, 3, S, S) uint8
                                              │ N * visual tokens a tile
    turns ─────────────────────────── ChatTemplate.encode ── shift by one ──> input_ids, labels, loss_weights (T,)

Tiles stay uint8: a quarter of the bytes to the trainer, which normalises them on the device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from internvl_lab.config import JpegConfig, SourceConfig, TilingConfig
from internvl_lab.constants import IGNORE_INDEX
from internvl_lab.data.jpeg import JpegCodec, jpeg_codec
from internvl_lab.data.long_samples import cut_text
from internvl_lab.data.regions import RegionTargets, regions_by_image
from internvl_lab.data.tiling import count_tiles, tile_budget, tile_image
from internvl_lab.data.transforms import decode_pixels, jpeg_augment
from internvl_lab.data.weights import token_weights
from internvl_lab.text.template import ChatTemplate, Ids

if TYPE_CHECKING:
    from internvl_lab.data.records import Record


@dataclass
class Sample:
    """Hold one encoded conversation; T tokens, N tiles."""

    key: str
    input_ids: Ids
    """(T,) int32."""
    labels: Ids
    """(T,) int32, SHIFTED: the target of position t is token t + 1; the last is IGNORE_INDEX."""
    loss_weights: NDArray[np.float32]
    """(T,) float32, 0 where there is no target."""
    tiles: NDArray[np.uint8]
    """(N, 3, H, W) uint8; N is 0 for text alone."""
    source_id: int
    """Position in the mixture's source names."""
    task: str
    """Field `task` of the record, "" if it has none."""


class SampleEncoder:
    """Encode records; a pure function of the record, its images, the seed and the epoch.

    Args:
        template: chat template with its tokenizer.
        tiling, jpeg: how images are cut and re-encoded.
        averaging, unit: loss weights, see `token_weights`.
        regions: also supervise visual tokens with the words of the record's regions.
    """

    def __init__(
        self,
        template: ChatTemplate,
        tiling: TilingConfig,
        jpeg: JpegConfig,
        averaging: str,
        unit: str,
        regions: bool = False,
    ) -> None:
        self.template, self.tiling, self.jpeg = template, tiling, jpeg
        self.averaging, self.unit = averaging, unit
        self.regions = RegionTargets(template, tiling) if regions else None

    @property
    def codec(self) -> JpegCodec:
        """Return what decodes and re-encodes JPEG; looked up, because it does not travel to a worker."""
        return jpeg_codec(self.jpeg.backend)

    def encode(
        self,
        record: Record,
        images: Sequence[bytes],
        *,
        seed: int,
        epoch: int,
        source: SourceConfig,
        source_id: int,
        augment: bool = True,
        copy: int = 0,
    ) -> Sample:
        """Encode one record.

        Args:
            images: the bytes of the record's images (or frames), in the order of the placeholders.
            seed, epoch: with the record's key they fix the augmentation, whatever worker or order the sample comes in.
            source: gives the tile limit, whether JPEG augmentation may act, and a factor on the loss weights.
            augment: False switches augmentation off (validation).
            copy: number of this appearance in the epoch, see `sample_rng`.

        Raises:
            SampleError: an image or the text is unusable; see `decode_pixels` and `ChatTemplate.encode`.
        """
        pictures = [decode_pixels(data, record.key, self.codec) for data in images]
        limit, thumbnail = self._limits(len(pictures), source.max_tiles, record.is_video)
        groups = [tile_image(picture, self.tiling, limit, thumbnail) for picture in pictures]
        counts = [len(group) * self.tiling.num_visual_tokens for group in groups]
        encoded = cut_text(self.template.encode(record.turns, counts, record.key), record.max_tokens)
        labels = _shift(encoded.labels, IGNORE_INDEX)
        weights = token_weights(labels, _shift(encoded.response_ids, -1), self.averaging, self.unit)
        if self.regions is not None and pictures:
            rng = sample_rng(seed, epoch, f"{record.key}/regions", copy)
            sizes = [(picture.shape[1], picture.shape[0]) for picture in pictures]
            self._add_regions(record, sizes, (limit, thumbnail), encoded.input_ids, labels, weights, rng)
        weights *= np.float32(source.weight)
        tiles = self._stack(groups)
        if augment and source.jpeg and self.jpeg.enabled and not record.is_video and len(tiles):
            tiles = jpeg_augment(tiles, self.jpeg, sample_rng(seed, epoch, record.key, copy))
        return Sample(
            key=record.key,
            input_ids=encoded.input_ids,
            labels=labels,
            loss_weights=weights,
            tiles=np.ascontiguousarray(tiles.transpose(0, 3, 1, 2)),
            source_id=source_id,
            task=str(record.metadata.get("task") or ""),
        )

    def _add_regions(
        self,
        record: Record,
        sizes: Sequence[tuple[int, int]],
        limits: tuple[int, bool],
        input_ids: Ids,
        labels: Ids,
        weights: NDArray[np.float32],
        rng: np.random.Generator,
    ) -> None:
        """Write targets and weights of the visual tokens into `labels` and `weights`, both (T,), in place.

        They are averaged as a response of their own: w = 1 / x^p over their number x.
        """
        regions = regions_by_image(record.metadata, len(sizes))
        if self.regions is None or not regions:
            return
        parts = [self.regions.of_image(size, r, *limits, rng) for size, r in zip(sizes, regions, strict=True)]
        targets = np.concatenate(parts)
        positions = np.flatnonzero(input_ids == self.template.context_id)
        labels[positions] = targets
        weights[positions] = token_weights(targets, np.zeros_like(targets), self.averaging, "sample")

    def tokens_per_image(
        self, sizes: Sequence[tuple[int, int]], source_max_tiles: int | None, is_video: bool
    ) -> list[int]:
        """Count the visual tokens of each image of one sample, from the sizes alone.

        Args:
            sizes: (width, height) of each image in pixels, as `read_image_size` gives them.
            source_max_tiles: tile limit of the source; None = `tiling.max_tiles`.
            is_video: the images are frames: one tile each, no thumbnail.
        """
        limit, thumbnail = self._limits(len(sizes), source_max_tiles, is_video)
        tiles = (count_tiles(width, height, self.tiling, limit, thumbnail) for width, height in sizes)
        return [count * self.tiling.num_visual_tokens for count in tiles]

    def _limits(self, num_images: int, source_max_tiles: int | None, is_video: bool) -> tuple[int, bool]:
        """Return (tile limit of each image, whether thumbnails are allowed). Source: InternVL 2.5, section 3.1."""
        if is_video or num_images == 0:
            return 1, False
        max_tiles = self.tiling.max_tiles if source_max_tiles is None else source_max_tiles
        return tile_budget(num_images, max_tiles), self.tiling.use_thumbnail

    def _stack(self, groups: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Join the tiles of all images to (N, S, S, 3)."""
        if len(groups) == 1:
            return groups[0]
        edge = self.tiling.tile_size
        return np.concatenate(groups) if groups else np.empty((0, edge, edge, 3), np.uint8)


def sample_rng(seed: int, epoch: int, key: str, copy: int = 0) -> np.random.Generator:
    """Return the random generator of one sample in one epoch; the same on every machine.

    Args:
        copy: 0 for the first appearance of the sample in the epoch, 1 for the second, ...: where a source has a
            `repeat` above 1, no two copies look the same.

    Raises:
        ValueError: a negative number.
    """
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    numbers = [seed, epoch, int.from_bytes(digest, "little")]
    return np.random.default_rng([*numbers, copy] if copy else numbers)  # without copies as it has always been


def _shift(values: Ids, fill: int) -> Ids:
    """Move every value one position forward, inside the sample: result[t] = values[t + 1], the last is `fill`."""
    shifted = np.full_like(values, fill)
    shifted[:-1] = values[1:]
    return shifted
