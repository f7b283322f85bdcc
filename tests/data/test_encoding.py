"""One record in, one sample out: shapes, shift, weights, tile limits, and reproducible augmentation."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import ExifTags, Image

from internvl_lab.config import JpegConfig, SourceConfig, TilingConfig
from internvl_lab.constants import IGNORE_INDEX
from internvl_lab.data.encoding import Sample, SampleEncoder, sample_rng
from internvl_lab.data.records import Record
from internvl_lab.data.tiling import tile_image
from internvl_lab.data.transforms import read_image_size
from internvl_lab.errors import SampleError
from internvl_lab.text import ChatTemplate, Turn, train_tokenizer

TEMPLATE = ChatTemplate(train_tokenizer(["what is it? a red square"], 300), "")
TILING = TilingConfig(tile_size=32, num_visual_tokens=4, max_tiles=6)
ENCODER = SampleEncoder(TEMPLATE, TILING, JpegConfig(), "square", "sample")


def picture(width: int, height: int, seed: int = 0, **options: object) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def record(num_images: int = 1, *, key: str = "k0", is_video: bool = False, **metadata: object) -> Record:
    question = "<image>\n" * num_images + "what is it?"
    turns = (Turn("human", question), Turn("gpt", "a square"), Turn("human", "sure?"), Turn("gpt", "yes"))
    return Record(key, turns, tuple(f"{k}.png" for k in range(num_images)), is_video, metadata)


def encode(
    item: Record, images: list[bytes], encoder: SampleEncoder = ENCODER, *, epoch: int = 0, **options: object
) -> Sample:
    source = options.pop("source", SourceConfig())
    return encoder.encode(item, images, seed=1, epoch=epoch, source=source, source_id=3, **options)


def num_context(sample: Sample) -> int:
    return int(np.count_nonzero(sample.input_ids == TEMPLATE.context_id))


def test_sample_of_one_image() -> None:
    sample = encode(record(task="counting"), [picture(96, 64)])
    assert (sample.key, sample.source_id, sample.task) == ("k0", 3, "counting")
    assert sample.tiles.shape == (7, 3, 32, 32)
    assert sample.tiles.flags.c_contiguous
    assert (sample.tiles.dtype, sample.input_ids.dtype, sample.labels.dtype) == (np.uint8, np.int32, np.int32)
    assert len(sample.input_ids) == len(sample.labels) == len(sample.loss_weights)
    assert num_context(sample) == 7 * 4


def test_labels_are_the_next_token_inside_the_sample() -> None:
    sample = encode(record(), [picture(32, 32)])
    supervised = np.flatnonzero(sample.labels != IGNORE_INDEX)
    assert np.array_equal(sample.labels[supervised], sample.input_ids[supervised + 1])
    assert sample.labels[-1] == IGNORE_INDEX
    text = TEMPLATE.tokenizer.backend_tokenizer.decode(sample.labels[supervised].tolist(), skip_special_tokens=False)
    assert text == "a square<|im_end|>yes<|im_end|>"


def test_weights_follow_unit_and_averaging() -> None:
    sample = encode(record(), [picture(32, 32)])
    supervised = sample.labels != IGNORE_INDEX
    np.testing.assert_allclose(sample.loss_weights, np.where(supervised, supervised.sum() ** -0.5, 0), rtol=1e-6)
    by_response = encode(
        record(), [picture(32, 32)], SampleEncoder(TEMPLATE, TILING, JpegConfig(), "sample", "response")
    )
    assert by_response.loss_weights.sum() == pytest.approx(2), "each of the two responses sums to 1"


def test_pixels_without_augmentation_are_the_tiles() -> None:
    data = picture(96, 64)
    sample = encode(record(), [data], augment=False)
    tiles = tile_image(Image.open(io.BytesIO(data)), TILING)
    assert np.array_equal(sample.tiles, tiles.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("item", "options", "augmented"),
    [
        (record(), {}, True),
        (record(), {"augment": False}, False),
        (record(), {"source": SourceConfig(jpeg=False)}, False),
        (record(), {"encoder": SampleEncoder(TEMPLATE, TILING, JpegConfig(enabled=False), "token", "sample")}, False),
        (record(is_video=True), {}, False),
    ],
    ids=["image", "augment off", "source off", "config off", "video"],
)
def test_who_is_augmented(item: Record, options: dict[str, object], augmented: bool) -> None:
    data = picture(32, 32)
    plain = np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1)
    assert (not np.array_equal(encode(item, [data], **options).tiles[0], plain)) is augmented


def test_augmentation_depends_on_seed_epoch_and_key_not_on_order() -> None:
    data = [picture(96, 64)]
    first = encode(record(), data).tiles
    encode(record(key="other"), data)
    assert np.array_equal(encode(record(), data).tiles, first)
    assert not np.array_equal(encode(record(), data, epoch=1).tiles, first)
    assert not np.array_equal(encode(record(key="k1"), data).tiles, first)


def test_generator_of_a_sample_is_the_same_on_every_machine() -> None:
    assert sample_rng(1, 0, "k0").integers(75, 101, 5).tolist() == [91, 97, 78, 91, 81]
    assert len({sample_rng(*who).integers(1 << 60) for who in [(1, 0, "a"), (0, 1, "a"), (1, 0, "b")]}) == 3


def test_many_images_share_the_budget() -> None:
    sample = encode(record(3), [picture(96, 32, k) for k in range(3)])
    assert len(sample.tiles) == 3 * 3, "budget 2 each: 2 x 1 tiles and a thumbnail"
    assert num_context(sample) == 9 * 4


def test_frames_are_one_tile_each() -> None:
    sample = encode(record(4, is_video=True), [picture(96, 32, k) for k in range(4)])
    assert len(sample.tiles) == 4
    assert num_context(sample) == 4 * 4


def test_limit_of_the_source_wins() -> None:
    assert len(encode(record(), [picture(96, 64)], source=SourceConfig(max_tiles=2)).tiles) == 3


def test_text_alone_has_no_tiles() -> None:
    sample = encode(record(0), [])
    assert sample.tiles.shape == (0, 3, 32, 32)
    assert num_context(sample) == 0
    assert sample.loss_weights.sum() > 0


@pytest.mark.parametrize("num_images", [1, 3])
@pytest.mark.parametrize("is_video", [False, True])
def test_visual_tokens_are_known_from_the_sizes(num_images: int, is_video: bool) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    images = [picture(200, 40 + 30 * k, k, exif=exif) for k in range(num_images)]
    sizes = [read_image_size(data, "k") for data in images]
    assert sizes[0] == (40, 200)
    counts = ENCODER.tokens_per_image(sizes, 5, is_video)
    sample = encode(record(num_images, is_video=is_video), images, source=SourceConfig(max_tiles=5))
    assert sum(counts) == num_context(sample) == len(sample.tiles) * 4
    assert len(counts) == num_images


def test_no_images_need_no_tokens() -> None:
    assert ENCODER.tokens_per_image([], None, False) == []


@pytest.mark.parametrize(
    ("item", "images", "reason"),
    [
        (record(), [b"junk"], "corrupt_image"),
        (record(2), [picture(32, 32)], "image_count"),
        (replace(record(), turns=(Turn("human", "<image> </img>"),)), [picture(32, 32)], "special_token_in_text"),
    ],
    ids=["image", "count", "text"],
)
def test_faults_name_the_sample(item: Record, images: list[bytes], reason: str) -> None:
    with pytest.raises(SampleError) as caught:
        encode(item, images)
    assert (caught.value.key, caught.value.reason) == ("k0", reason)


def test_weight_of_a_source_is_a_factor_on_the_loss_alone() -> None:
    images = [picture(96, 64)]
    plain, heavy = (encode(record(), images, source=SourceConfig(weight=weight)) for weight in (1.0, 2.5))
    assert heavy.loss_weights.dtype == np.float32
    assert np.array_equal(heavy.loss_weights, plain.loss_weights * np.float32(2.5)) and plain.loss_weights.any()
    assert np.array_equal(heavy.labels, plain.labels) and np.array_equal(heavy.tiles, plain.tiles)


def test_copies_have_random_numbers_of_their_own() -> None:
    first = sample_rng(1, 0, "k0").integers(1 << 60)
    assert sample_rng(1, 0, "k0", 0).integers(1 << 60) == first  # the first copy is what there was before copies
    assert len({first, *(sample_rng(1, 0, "k0", copy).integers(1 << 60) for copy in (1, 2, 3))}) == 4
