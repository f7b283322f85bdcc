"""JPEG codecs: the fast one gives Pillow's bits, for every kind of file, or hands the file to Pillow."""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import ExifTags, Image

from internvl_lab.config import JpegConfig
from internvl_lab.data import jpeg
from internvl_lab.data.jpeg import FastCodec, JpegCodec, PillowCodec, jpeg_codec, same_bits
from internvl_lab.data.transforms import decode_pixels, jpeg_augment
from internvl_lab.errors import ConfigError, SampleError

RNG = np.random.default_rng(0)
SMOOTH = np.stack([*np.meshgrid(np.linspace(0, 255, 75), np.linspace(255, 0, 53)), np.full((53, 75), 90.0)], -1)
PICTURE = (0.7 * SMOOTH + 0.3 * RNG.integers(0, 256, SMOOTH.shape)).astype(np.uint8)
"""(53, 75, 3): odd sizes, with edges and gradients."""


@pytest.fixture
def fast() -> FastCodec:
    pytest.importorskip("simplejpeg")
    pytest.importorskip("cv2")
    return FastCodec()


@pytest.fixture
def fresh_codecs() -> Iterator[None]:
    """Forget which codecs were handed out."""
    jpeg_codec.cache_clear()
    yield
    jpeg_codec.cache_clear()


def encode(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def files() -> dict[str, bytes]:
    """One file for each way in which JPEGs differ."""
    rgb = Image.fromarray(PICTURE)
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    plain = encode(rgb, quality=90)
    middle = len(plain) * 2 // 3
    kinds = {f"subsampling {n}": encode(rgb, quality=88, subsampling=n) for n in (0, 1, 2)}
    return {
        **kinds,
        "progressive": encode(rgb, progressive=True),
        "optimised": encode(rgb, optimize=True, quality=77),
        "restart markers": encode(rgb, restart_marker_blocks=3),
        "grey": encode(rgb.convert("L")),
        "cmyk": encode(rgb.convert("CMYK")),
        "true rgb": encode(rgb, keep_rgb=True),
        "exif rotation": encode(rgb, exif=turned),
        "one pixel": encode(rgb.resize((1, 1))),
        "tall": encode(rgb.resize((1, 300))),
        "rubbish behind": plain + b"rubbish",
        "without end": plain[:-2],
        "bytes lost": plain[:middle] + plain[middle + 9 :],
        "bytes wrong": plain[:middle] + bytes(20) + plain[middle + 20 :],
        "cut": plain[:middle],
        "header alone": plain[:120],
        "start alone": b"\xff\xd8\xff",
        "other format": png(rgb),
    }


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def outcome(data: bytes, codec: JpegCodec) -> tuple[object, ...]:
    """Return the pixels, or what is said about the file."""
    try:
        pixels = decode_pixels(data, "k", codec)
    except SampleError as error:
        return error.key, error.reason, error.detail
    assert pixels.dtype == np.uint8
    return pixels.shape, pixels.tobytes()


@pytest.mark.parametrize("kind", files())
def test_every_file_decodes_as_with_pillow(kind: str, fast: FastCodec) -> None:
    data = files()[kind]
    assert outcome(data, fast) == outcome(data, PillowCodec())


@pytest.mark.parametrize("kind", ["subsampling 0", "subsampling 1", "subsampling 2", "progressive", "restart markers"])
def test_sound_files_take_the_fast_way(kind: str, fast: FastCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("internvl_lab.data.transforms.decode_image", None)
    assert decode_pixels(files()[kind], "k", fast).shape == PICTURE.shape


def test_cut_anywhere_is_judged_as_by_pillow(fast: FastCodec) -> None:
    for progressive in (False, True):
        data = encode(Image.fromarray(PICTURE), progressive=progressive)
        for length in range(3, len(data), 61):
            assert outcome(data[:length], fast) == outcome(data[:length], PillowCodec()), length


def test_one_wrong_byte_anywhere_is_judged_as_by_pillow(fast: FastCodec) -> None:
    data = encode(Image.fromarray(PICTURE))
    for place in range(2, len(data), 29):
        damaged = data[:place] + bytes([data[place] ^ 0x5A]) + data[place + 1 :]
        assert outcome(damaged, fast) == outcome(damaged, PillowCodec()), place


def test_a_bomb_is_refused_before_decoding(fast: FastCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(encode(Image.fromarray(PICTURE)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 60000, 60000)
    monkeypatch.setattr(fast, "_decode", None)
    assert outcome(bytes(data), fast)[1] == "decompression_bomb"


@pytest.mark.parametrize("shape", [(53, 75), (32, 32), (448, 448)])
def test_tiles_are_reencoded_to_the_same_bits_at_all_qualities(shape: tuple[int, int], fast: FastCodec) -> None:
    tile = np.ascontiguousarray(np.tile(PICTURE, (9, 6, 1))[: shape[0], : shape[1]])
    ours, theirs = np.empty((2, 3, *shape), np.uint8)
    qualities = range(75, 101) if shape != (448, 448) else (75, 88, 95, 96, 100)
    for quality in qualities:
        fast.reencode(tile, quality, ours)
        PillowCodec().reencode(tile, quality, theirs)
        assert np.array_equal(ours, theirs), quality


def test_encoded_bytes_are_pillow_s(fast: FastCodec) -> None:
    cv2 = pytest.importorskip("cv2")
    for quality in range(75, 101):
        _, data = cv2.imencode(".jpg", PICTURE[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))
        assert data.tobytes() == encode(Image.fromarray(PICTURE), quality=quality)


def test_augmentation_is_the_same_with_every_backend(fast: FastCodec) -> None:
    tiles = np.stack([PICTURE[:48, :48], PICTURE[5:53, 20:68]])
    one, other = (
        jpeg_augment(tiles, JpegConfig(backend=backend), np.random.default_rng(5)) for backend in ("fast", "pillow")
    )
    assert np.array_equal(one, other) and not np.array_equal(one, tiles)
    assert one.transpose(0, 3, 1, 2).flags.c_contiguous


@pytest.mark.usefixtures("fresh_codecs")
def test_auto_takes_what_is_installed(fast: FastCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    assert jpeg_codec("auto").name == jpeg_codec("fast").name == fast.name == "fast"
    assert jpeg_codec("pillow").name == "pillow"
    jpeg_codec.cache_clear()
    monkeypatch.setitem(sys.modules, "simplejpeg", None)  # importing it raises ImportError
    assert jpeg_codec("auto").name == "pillow"
    with pytest.raises(ConfigError, match=r"simplejpeg.*\[fast\]"):
        jpeg_codec("fast")


@pytest.mark.usefixtures("fresh_codecs")
def test_a_build_with_other_bits_is_not_used(fast: FastCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg.FastCodec, "decode", PillowCodec.decode)
    assert not same_bits(FastCodec())
    assert jpeg_codec("auto").name == "pillow"
    with pytest.raises(ConfigError, match="other bits than Pillow"):
        jpeg_codec("fast")


def test_unknown_backends_are_refused() -> None:
    for call in (jpeg_codec, lambda name: JpegConfig(backend=name)):
        with pytest.raises(ConfigError, match="must be auto, pillow or fast"):
            call("turbo")


def test_the_backend_is_no_part_of_the_fingerprint() -> None:
    assert repr(JpegConfig(backend="fast")) == repr(JpegConfig(backend="pillow"))
