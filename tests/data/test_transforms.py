"""Strict decoding of every odd image, and the JPEG augmentation."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile

from internvl_lab.config import JpegConfig
from internvl_lab.data.transforms import decode_image, jpeg_augment, read_image_size
from internvl_lab.errors import SampleError

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (60, 40, 3), np.uint8)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(data: bytes) -> np.ndarray:
    image = decode_image(data, "k")
    assert image.mode == "RGB"
    return np.asarray(image)


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims any size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def reason_of(data: bytes) -> str:
    with pytest.raises(SampleError) as caught:
        decode_image(data, "k7")
    assert caught.value.key == "k7"
    return caught.value.reason


def test_rgb_pixels_are_exact() -> None:
    assert np.array_equal(decode(encode(Image.fromarray(NOISE))), NOISE)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("progressive", [False, True])
def test_cut_jpeg_is_corrupt_and_never_grey(share: float, progressive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as a careless library leaves it
    data = encode(Image.fromarray(RNG.integers(0, 256, (200, 300, 3), np.uint8)), "JPEG", progressive=progressive)
    assert reason_of(data[: int(share * len(data))]) == "corrupt_image"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not an image",
        encode(Image.fromarray(NOISE))[:500],
        encode(Image.fromarray(NOISE), "WEBP")[:500],
        png_header(100, 100),
    ],
    ids=["empty", "garbage", "cut png", "cut webp", "png without pixels"],
)
def test_broken_files_are_corrupt(data: bytes) -> None:
    assert reason_of(data) == "corrupt_image"


@pytest.mark.parametrize("limit", [Image.MAX_IMAGE_PIXELS, None], ids=["pillow's guard", "guard switched off"])
def test_bombs_are_refused_before_decoding(limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    bomb = png_header(60000, 60000)
    assert reason_of(bomb) == "decompression_bomb"
    with pytest.raises(SampleError, match="decompression_bomb"):
        read_image_size(bomb, "k")


def test_transparency_lies_on_white() -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2] = (200, 0, 0, 255)
    expected = np.where(np.arange(4)[:, None, None] < 2, np.uint8([200, 0, 0]), np.uint8([255, 255, 255]))
    full = Image.fromarray(rgba)
    assert np.array_equal(decode(encode(full)), np.broadcast_to(expected, (4, 4, 3)))
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.paste(1, (0, 0, 4, 2))
    pixels = decode(encode(palette, transparency=0))
    assert pixels[0, 0].tolist() == [40, 50, 60]
    assert pixels[3, 0].tolist() == [255, 255, 255]
    assert decode(encode(Image.new("LA", (2, 2), (0, 0))))[0, 0].tolist() == [255, 255, 255]


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    grey = np.array([[0, 257, 32896, 65535]], np.uint16)
    assert decode(encode(Image.fromarray(grey)))[0, :, 0].tolist() == [0, 1, 128, 255]
    wide = Image.fromarray(grey.astype(np.int32))
    assert decode(encode(wide, "TIFF"))[0, :, 1].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "LAB", "F"])
def test_other_modes_become_rgb(mode: str) -> None:
    white = Image.new("RGB", (8, 8), "white")
    image = white.convert(mode) if mode != "LAB" else Image.new("LAB", (8, 8), (255, 128, 128))
    assert decode(encode(image, "TIFF")).min() >= 250


def test_cmyk_jpeg_keeps_its_colour() -> None:
    data = encode(Image.new("RGB", (16, 16), (250, 10, 10)).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decode(data)[8, 8].astype(int) - (250, 10, 10)).max() < 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation_turns_pixels_and_size_alike(kind: str, orientation: int) -> None:
    image = Image.new("RGB", (40, 60), "black")
    image.paste("white", (0, 0, 40, 20))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encode(image, kind, exif=exif)
    upright = decode_image(data, "k")
    assert upright.size == ((60, 40) if orientation in (6, 8) else (40, 60))
    assert read_image_size(data, "k") == upright.size
    corner = {1: (20, 5), 3: (20, 55), 6: (55, 20), 8: (5, 20)}[orientation]
    assert min(upright.getpixel(corner)) > 200


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_does_not_lose_the_picture() -> None:
    data = encode(Image.fromarray(NOISE), "PNG", exif=b"Exif\x00\x00MM\x00*garbage!")
    assert np.array_equal(decode(data), NOISE)
    assert read_image_size(data, "k") == (40, 60)


def test_size_comes_from_the_header_alone() -> None:
    data = encode(Image.fromarray(RNG.integers(0, 256, (200, 300, 3), np.uint8)), "JPEG")
    assert read_image_size(data[:1000], "k") == (300, 200)
    with pytest.raises(SampleError, match="k9: corrupt_image"):
        read_image_size(b"junk", "k9")


def test_one_pixel_and_animation() -> None:
    assert decode(encode(Image.new("RGB", (1, 1), (1, 2, 3)))).tolist() == [[[1, 2, 3]]]
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data)[0, 0].tolist() == [255, 0, 0]


TILES = np.stack([NOISE[:32, :32], NOISE[10:42, 5:37], NOISE[:32, :32]])


def reencode(tile: np.ndarray, quality: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encode(Image.fromarray(tile), "JPEG", quality=quality))))


def test_each_tile_passes_through_jpeg_at_its_own_quality() -> None:
    many = np.repeat(NOISE[None, :32, :32], 200, axis=0)
    augmented = jpeg_augment(many, JpegConfig(min_quality=75, max_quality=78), np.random.default_rng(0))
    possible = {reencode(many[0], quality).tobytes(): quality for quality in range(70, 85)}
    found = [possible[np.ascontiguousarray(tile).tobytes()] for tile in augmented]
    assert set(found) == {75, 76, 77, 78}, "both ends belong to the range"
    assert all(found.count(quality) > 25 for quality in set(found)), "roughly uniform"


def test_augmentation_depends_on_the_generator_alone() -> None:
    before = TILES.copy()
    one, same, other = (jpeg_augment(TILES, JpegConfig(), np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert np.array_equal(TILES, before), "the input stays as it is"
    assert (one.shape, one.dtype) == (TILES.shape, TILES.dtype)


def test_first_tiles_do_not_depend_on_later_ones() -> None:
    few = jpeg_augment(TILES[:2], JpegConfig(), np.random.default_rng(3))
    assert np.array_equal(few, jpeg_augment(TILES, JpegConfig(), np.random.default_rng(3))[:2])


def test_disabled_or_empty_comes_back_as_is() -> None:
    rng = np.random.default_rng(0)
    assert np.array_equal(jpeg_augment(TILES, JpegConfig(enabled=False), rng), TILES)
    assert jpeg_augment(TILES[:0], JpegConfig(), rng).shape == (0, 32, 32, 3)
