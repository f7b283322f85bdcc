"""Loader pipelines of others, as datasets for torch's DataLoader, to compare a worker of ours with.

```
tars ── wds.WebDataset ──> Pillow decode, resize, JPEG per tile ──> fp32, normalised ──┐
                           HF tokenizer on text with every <IMG_CONTEXT> spelled out ──┴──> sample
   official:   first open pack with room, torch.cat onto it; the whole buffer deep-copied at every pack
   webdataset: samples in order, a new pack where the next one does not fit, one torch.cat
```

`official` re-implements the authors' `train/dataset.py` and `dataset_packed.py` (spec sections 2, 4 and 6.2). Choices
that could go either way go its way: it reads tars instead of single files, grids come from our cached `choose_grid`,
and the expanded texts pass the fast tokenizer, although the stage scripts ask for the slow one (1.8 against 6.5 ms a
sample, research notes).
"""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerFast

from internvl_lab.config import JpegConfig, PackingConfig, TilingConfig
from internvl_lab.constants import (
    IGNORE_INDEX,
    IMAGE_CONTEXT_TOKEN,
    IMAGE_END_TOKEN,
    IMAGE_PLACEHOLDER,
    IMAGE_START_TOKEN,
    IMAGENET_MEAN,
    IMAGENET_STD,
    TURN_END_TOKEN,
    TURN_START_TOKEN,
)
from internvl_lab.data.first_fit import MAX_OPEN_PACKS
from internvl_lab.data.records import Record, parse_record
from internvl_lab.data.shards import IMAGE_SUFFIXES
from internvl_lab.data.tiling import choose_grid, tile_budget

Fields = dict[str, Tensor]
"""A sample or pack: input_ids, labels, position_ids, loss_weight, data_index (T,), pixel_values (N, 3, S, S) fp32,
image_flags (N,), 0 for the blank tile of a text-only sample."""

_MEAN, _STD = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
_ROLES = {"system": "system", "human": "user", "gpt": "assistant"}


@dataclass(frozen=True)
class Work:
    """Say what a pipeline reads and makes."""

    shards: tuple[str, ...]
    samples: int
    """Use the first so many."""
    tokenizer: PreTrainedTokenizerFast
    system_message: str
    tiling: TilingConfig = field(default_factory=TilingConfig)
    jpeg: JpegConfig = field(default_factory=JpegConfig)
    packing: PackingConfig = field(default_factory=PackingConfig)


class OfficialPipeline(IterableDataset[Fields]):
    """Yield packs as the authors' `PackedDataset` makes them."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def __iter__(self) -> Iterator[Fields]:
        """Yield packs; the copied buffer is dropped here, as their collator drops it in the worker."""
        limits = self.work.packing.max_tokens, self.work.packing.max_tiles
        for pack, buffer in grow_packs(encoded_samples(self.work, blank_tile=True), *limits):
            copy.deepcopy(buffer)
            yield pack


class WebdatasetPipeline(IterableDataset[Fields]):
    """Yield packs of consecutive samples, as a short script around webdataset would."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def __iter__(self) -> Iterator[Fields]:
        """Yield packs."""
        pack: list[Fields] = []
        for sample in encoded_samples(self.work, blank_tile=False):
            if pack and not _fits([*pack, sample], self.work.packing.max_tokens, self.work.packing.max_tiles):
                yield _join(pack)
                pack = []
            pack.append(sample)
        if pack:
            yield _join(pack)


def grow_packs(samples: Iterable[Fields], max_tokens: int, max_tiles: int) -> Iterator[tuple[Fields, list[Fields]]]:
    """Yield (pack, open packs) by the authors' first-fit; the same policy as `first_fit`, with tensors that grow."""
    buffer: list[Fields] = []
    for sample in samples:
        place = next((i for i, pack in enumerate(buffer) if _fits([pack, sample], max_tokens, max_tiles)), None)
        pack = sample if place is None else _join([buffer.pop(place), sample])
        if len(pack["input_ids"]) == max_tokens:
            yield pack, buffer
        else:
            fewer = (i for i, other in enumerate(buffer) if _num_tiles(other) < _num_tiles(pack))
            buffer.insert(next(fewer, len(buffer)), pack)
        while buffer and (_num_tiles(buffer[0]) == max_tiles or len(buffer) > MAX_OPEN_PACKS):
            first = buffer.pop(0)
            yield first, buffer
    while buffer:
        first = buffer.pop(0)
        yield first, buffer


def encoded_samples(work: Work, blank_tile: bool) -> Iterator[Fields]:
    """Read, decode and tokenise samples with Pillow and the tokenizer's own call; over-long ones are dropped."""
    import webdataset as wds

    stream = wds.WebDataset(list(work.shards), shardshuffle=False, empty_check=False)
    rng = random.Random(0)
    for member in islice(stream, work.samples):
        fields = encode_sample(member, work, rng, blank_tile)
        if _fits([fields], work.packing.max_tokens, work.packing.max_tiles):
            yield fields


def encode_sample(member: dict[str, Any], work: Work, rng: random.Random, blank_tile: bool) -> Fields:
    """Encode one webdataset sample (suffix to bytes); T tokens, N tiles as in `Fields`."""
    files = [member[suffix] for suffix in sorted(_image_suffixes(member), key=_number)]
    record = parse_record(json.loads(member["json"]), member["__key__"], len(files))
    groups = [pillow_tiles(_open_rgb(data), work.tiling, len(files), record.is_video) for data in files]
    tiles = [tile for group in groups for tile in group]
    edge = work.tiling.tile_size
    flags = [1] * len(tiles)
    if not tiles and blank_tile:
        tiles, flags = [Image.new("RGB", (edge, edge), (255, 255, 255))], [0]
    planes = [_normalised(_through_jpeg(tile, work.jpeg, rng)) for tile in tiles]
    ids, labels = expanded_ids(record, work, [len(group) for group in groups])
    supervised = sum(label != IGNORE_INDEX for label in labels)
    weight = 1 / max(1, supervised) ** 0.5
    return {
        "input_ids": torch.tensor(ids),
        "labels": torch.tensor(labels),
        "position_ids": torch.arange(len(ids)),
        "loss_weight": torch.tensor([0.0 if label == IGNORE_INDEX else weight for label in labels]),
        "data_index": torch.zeros(len(ids), dtype=torch.int64),
        "pixel_values": torch.stack(planes) if planes else torch.empty(0, 3, edge, edge),
        "image_flags": torch.tensor(flags, dtype=torch.int64),
    }


def pillow_tiles(image: Image.Image, tiling: TilingConfig, num_images: int, is_video: bool) -> list[Image.Image]:
    """Cut an image as the authors' `dynamic_preprocess` does: bicubic resize, crops, thumbnail last."""
    limit = 1 if is_video else tile_budget(num_images, tiling.max_tiles)
    edge = tiling.tile_size
    columns, rows = choose_grid(*image.size, min(tiling.min_tiles, limit), limit, edge)
    whole = image.resize((columns * edge, rows * edge), Image.Resampling.BICUBIC)
    boxes = ((x * edge, y * edge, x * edge + edge, y * edge + edge) for y in range(rows) for x in range(columns))
    tiles = [whole.crop(box) for box in boxes]
    if tiling.use_thumbnail and len(tiles) != 1:
        tiles.append(image.resize((edge, edge), Image.Resampling.BICUBIC))
    return tiles


def expanded_ids(record: Record, work: Work, tiles_per_image: list[int]) -> tuple[list[int], list[int]]:
    """Tokenise turn by turn with every visual token spelled out.

    Returns:
        ids and labels, T each; labels as in the authors' `preprocess_internvl2_5`: the answers with their end.
    """
    counts = iter(tiles_per_image)
    texts = [("system", work.system_message)] if work.system_message else []
    for turn in record.turns:
        text = turn.text
        while turn.role == "human" and IMAGE_PLACEHOLDER in text:
            context = IMAGE_CONTEXT_TOKEN * (work.tiling.num_visual_tokens * next(counts))
            text = text.replace(IMAGE_PLACEHOLDER, f"{IMAGE_START_TOKEN}{context}{IMAGE_END_TOKEN}", 1)
        texts.append((turn.role, text))
    pieces = [f"{TURN_START_TOKEN}{_ROLES[role]}\n{text}{TURN_END_TOKEN}\n" for role, text in texts]
    header = len(work.tokenizer(f"{TURN_START_TOKEN}assistant\n", add_special_tokens=False).input_ids)
    ids: list[int] = []
    labels: list[int] = []
    encoded = work.tokenizer(pieces, add_special_tokens=False).input_ids
    for (role, _), piece in zip(texts, encoded, strict=True):
        ids += piece
        hidden = len(piece) if role != "gpt" else header
        labels += [IGNORE_INDEX] * hidden + piece[hidden:-1] + [IGNORE_INDEX] * (hidden < len(piece))
    return ids, labels


def _image_suffixes(member: dict[str, Any]) -> list[str]:
    """List the image members of a sample."""
    return [name for name in member if name.rpartition(".")[2].lower() in IMAGE_SUFFIXES]


def _number(suffix: str) -> int:
    """Return n of `n.ext`, 0 for `ext` alone."""
    number, dot, _ = suffix.partition(".")
    return int(number) if dot else 0


def _open_rgb(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def _through_jpeg(tile: Image.Image, jpeg: JpegConfig, rng: random.Random) -> Image.Image:
    """Re-encode a tile at a random quality, as the authors' transform does."""
    if not jpeg.enabled:
        return tile
    buffer = io.BytesIO()
    tile.save(buffer, "JPEG", quality=rng.randint(jpeg.min_quality, jpeg.max_quality))
    return Image.open(buffer).convert("RGB")


def _normalised(tile: Image.Image) -> Tensor:
    """Do what torchvision's ToTensor and Normalize do: (3, S, S) fp32."""
    planes = torch.from_numpy(np.array(tile)).permute(2, 0, 1).contiguous().float().div(255)
    return planes.sub_(_MEAN).div_(_STD)


def _fits(parts: list[Fields], max_tokens: int, max_tiles: int) -> bool:
    """Tell whether samples and packs fit into one pack."""
    tokens = sum(len(part["input_ids"]) for part in parts)
    return tokens <= max_tokens and sum(map(_num_tiles, parts)) <= max_tiles


def _num_tiles(fields: Fields) -> int:
    return len(fields["pixel_values"])


def _join(parts: list[Fields]) -> Fields:
    """Concatenate all fields; sub-samples stay countable through `data_index`."""
    start, indexes = 0, []
    for part in parts:
        indexes.append(part["data_index"] + start)
        start = int(indexes[-1][-1]) + 1
    return {name: torch.cat(indexes if name == "data_index" else [part[name] for part in parts]) for name in parts[0]}


PIPELINES: dict[str, type[OfficialPipeline] | type[WebdatasetPipeline]] = {
    "official": OfficialPipeline,
    "webdataset": WebdatasetPipeline,
}
