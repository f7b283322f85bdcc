"""The peers' pipelines do the work that ours does: same ids, same tiles, all samples once, packs as `first_fit`."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from internvl_lab.bench.pages import write_pages
from internvl_lab.bench.pipelines import (
    OfficialPipeline,
    WebdatasetPipeline,
    Work,
    encode_sample,
    expanded_ids,
    grow_packs,
    pillow_tiles,
)
from internvl_lab.config import JpegConfig, PackingConfig, TilingConfig
from internvl_lab.constants import IMAGENET_MEAN, IMAGENET_STD
from internvl_lab.data.first_fit import first_fit
from internvl_lab.data.records import parse_record
from internvl_lab.data.tiling import count_tiles, tile_image
from internvl_lab.text import ChatTemplate, load_tokenizer

TEMPLATE = ChatTemplate(load_tokenizer("asset:tokenizer"), "be brief")
TILING = TilingConfig(tile_size=56, num_visual_tokens=4, max_tiles=6)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    folder = tmp_path_factory.mktemp("pages")
    paths = write_pages(folder, 24, 0)
    packing = PackingConfig(max_tokens=400, max_tiles=20)
    return Work(tuple(map(str, paths)), 24, TEMPLATE.tokenizer, "be brief", TILING, JpegConfig(), packing)


def picture(width: int, height: int) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = np.stack([np.sin(9 * x + 3 * y), np.cos(7 * x * y), np.sin(20 * y)], axis=-1)
    return Image.fromarray((127 + 120 * waves).astype(np.uint8))


@pytest.mark.parametrize("size", [(640, 480), (56, 56), (300, 900), (1240, 1754)], ids=str)
@pytest.mark.parametrize("num_images", [1, 3])
def test_tiles_equal_ours_within_three_levels_and_exactly_with_pillow(size: tuple[int, int], num_images: int) -> None:
    image = picture(*size)
    theirs = np.stack([np.asarray(tile) for tile in pillow_tiles(image, TILING, num_images, False)])
    limit = TILING.max_tiles // num_images
    assert len(theirs) == count_tiles(*size, TILING, limit)
    assert np.array_equal(theirs, tile_image(image, replace(TILING, resize="pillow"), limit))
    assert np.abs(theirs.astype(int) - tile_image(image, TILING, limit)).max() <= 3


def test_frames_have_one_tile() -> None:
    assert len(pillow_tiles(picture(640, 480), TILING, 8, True)) == 1


@pytest.mark.parametrize("system", ["be brief", ""])
def test_ids_and_labels_equal_ours(work: Work, system: str) -> None:
    talk = [
        {"from": "human", "value": "<image>\nand <image> show what?"},
        {"from": "gpt", "value": "a red square\n3 times"},
        {"from": "human", "value": "sure?"},
        {"from": "gpt", "value": "yes"},
    ]
    record = parse_record({"conversations": talk}, "k", 2)
    template = ChatTemplate(TEMPLATE.tokenizer, system)
    ours = template.encode(record.turns, [3 * 4, 1 * 4])
    ids, labels = expanded_ids(record, replace(work, system_message=system), [3, 1])
    assert ids == ours.input_ids.tolist()
    assert labels == ours.labels.tolist()


def member(images: int) -> dict[str, object]:
    files = {}
    for number in reversed(range(images)):
        buffer = io.BytesIO()
        picture(100 + 50 * number, 100).save(buffer, "JPEG", quality=95)
        files[f"{number}.jpg"] = buffer.getvalue()
    talk = [{"from": "human", "value": "<image>" * images + "what?"}, {"from": "gpt", "value": "a square"}]
    return {"__key__": "k", "json": json.dumps({"conversations": talk}).encode(), **files}


def test_sample_is_normalised_floats_in_order(work: Work) -> None:
    plain = replace(work, jpeg=JpegConfig(enabled=False))
    data = member(2)
    sample = encode_sample(data, plain, random.Random(0), blank_tile=True)
    images = [Image.open(io.BytesIO(data[f"{n}.jpg"])) for n in range(2)]  # type: ignore[arg-type]
    tiles = np.concatenate([np.stack([np.asarray(t) for t in pillow_tiles(i, TILING, 2, False)]) for i in images])
    expected = (tiles / 255 - IMAGENET_MEAN) / IMAGENET_STD
    assert sample["pixel_values"].dtype == torch.float32
    np.testing.assert_allclose(sample["pixel_values"].permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)
    assert sample["image_flags"].tolist() == [1] * len(tiles)
    augmented = encode_sample(data, work, random.Random(0), blank_tile=True)
    assert not torch.equal(augmented["pixel_values"], sample["pixel_values"])


def test_text_burns_a_blank_tile_only_at_the_authors(work: Work) -> None:
    with_blank, without = (encode_sample(member(0), work, random.Random(0), blank_tile=b) for b in (True, False))
    assert with_blank["pixel_values"].shape == (1, 3, 56, 56) and with_blank["image_flags"].tolist() == [0]
    assert without["pixel_values"].shape == (0, 3, 56, 56)


def samples_of(sizes: list[tuple[int, int]]) -> list[dict[str, torch.Tensor]]:
    return [
        {
            "input_ids": torch.full((tokens,), number),
            "data_index": torch.zeros(tokens, dtype=torch.int64),
            "pixel_values": torch.zeros(tiles, 3, 1, 1),
        }
        for number, (tokens, tiles) in enumerate(sizes)
    ]


def test_growing_packs_follow_the_same_policy() -> None:
    draw = np.random.default_rng(0)
    sizes = [(int(draw.integers(1, 40)), int(draw.integers(1, 9))) for _ in range(300)]
    expected = [pack.members for pack in first_fit(((*size, n) for n, size in enumerate(sizes)), 100, 20)]
    packs = [pack for pack, _ in grow_packs(samples_of(sizes), 100, 20)]
    assert [pack["input_ids"].unique_consecutive().tolist() for pack in packs] == expected
    assert [int(pack["data_index"][-1]) + 1 for pack in packs] == [len(members) for members in expected]


@pytest.mark.parametrize("pipeline", [OfficialPipeline, WebdatasetPipeline])
def test_all_samples_arrive_within_the_limits(work: Work, pipeline: type[OfficialPipeline]) -> None:
    packs = list(pipeline(work))
    assert sum(int(pack["data_index"][-1]) + 1 for pack in packs) == 24
    for pack in packs:
        tokens, tiles = len(pack["input_ids"]), len(pack["pixel_values"])
        assert tokens <= 400 and tiles <= 20 and len(pack["labels"]) == len(pack["loss_weight"]) == tokens
        context = TEMPLATE.context_id
        assert int((pack["input_ids"] == context).sum()) == 4 * int(pack["image_flags"].sum())


def test_only_the_first_samples_are_read(work: Work, tmp_path: Path) -> None:
    packs = list(WebdatasetPipeline(replace(work, samples=5)))
    assert sum(int(pack["data_index"][-1]) + 1 for pack in packs) == 5
