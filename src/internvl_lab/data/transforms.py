"""Decode images strictly and re-encode tiles as JPEG.

Strict, because the authors' loader lifts Pillow's limits: a cut JPEG then trains with a grey rest (86 % of the picture
in one measured case), and a PNG of 138 bytes can ask for 10 GB. Here both condemn the sample instead.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from internvl_lab.config import JpegConfig
from internvl_lab.data.jpeg import JpegCodec, jpeg_codec
from internvl_lab.errors import SampleError

MAX_PIXELS = 178_956_970
"""Largest image that is decoded: where Pillow itself stops by default (2 * 1 GiB / 4 / 3). Held here as well, because
any library may set `Image.MAX_IMAGE_PIXELS` to None for the whole process."""

_JPEG_START = b"\xff\xd8"
_WHITE = (255, 255, 255, 255)
_SWAPPING_ORIENTATIONS = (5, 6, 7, 8)


def decode_image(data: bytes, key: str) -> Image.Image:
    """Decode an image file upright and as RGB.

    EXIF orientation is applied, transparency is laid on white, 16-bit grey is scaled to 8 bit; of an animation the
    first frame counts.

    Args:
        data: the file's bytes.
        key: the sample's key, for messages.

    Returns:
        An image of mode RGB.

    Raises:
        SampleError: `corrupt_image` (unknown format, truncated, broken) or `decompression_bomb` (over MAX_PIXELS).
    """
    # Any library may have switched this on for the whole process; a cut file must never decode to grey.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        image = _open(data, key)
        orientation = _orientation(image)
        image.load()
        if orientation != 1:
            ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image)
    except SampleError:
        raise
    except Exception as error:  # broken files raise anything: OSError, SyntaxError, struct.error, IndexError, ...
        raise SampleError(key, "corrupt_image", _describe(error)) from error


def decode_pixels(data: bytes, key: str, codec: JpegCodec) -> NDArray[np.uint8]:
    """Decode an image file to the pixels of `decode_image`, through a faster codec where the file allows it.

    Args:
        data, key: as in `decode_image`.
        codec: decodes upright three-channel JPEGs; all else, and what it finds a fault with, is Pillow's.

    Returns:
        (H, W, 3) uint8, perhaps read-only.

    Raises:
        SampleError: as in `decode_image`.
    """
    if data[:2] == _JPEG_START and (pixels := _decode_jpeg(data, key, codec)) is not None:
        return pixels
    return np.asarray(decode_image(data, key))


def read_image_size(data: bytes, key: str) -> tuple[int, int]:
    """Return (width, height) in pixels as `decode_image` gives them, EXIF orientation applied, from the header alone.

    Args:
        data: the file's bytes; the beginning is enough if it holds the header and the EXIF block.
        key: the sample's key, for messages.

    Raises:
        SampleError: as in `decode_image`, for faults that the header shows.
    """
    try:
        image = _open(data, key)
    except SampleError:
        raise
    except Exception as error:  # see decode_image
        raise SampleError(key, "corrupt_image", _describe(error)) from error
    width, height = image.size
    return (height, width) if _orientation(image) in _SWAPPING_ORIENTATIONS else (width, height)


def jpeg_augment(tiles: NDArray[np.uint8], cfg: JpegConfig, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pass each tile through JPEG at a quality of its own, as images from the web have been.

    Args:
        tiles: (N, H, W, 3) uint8, thumbnail included.
        cfg: qualities are uniform over the integers `min_quality` ... `max_quality`; disabled = tiles come back as is.
        rng: the only source of chance: N qualities are drawn from it, in the order of the tiles.

    Returns:
        (N, H, W, 3) uint8, in memory (N, 3, H, W).
    Source: InternVL 2.5, section 3.4; authors' `train/dataset.py`: probability 1, 4:2:0 chroma (Pillow's default).
    """
    if not cfg.enabled or len(tiles) == 0:
        return tiles
    qualities = rng.integers(cfg.min_quality, cfg.max_quality, size=len(tiles), endpoint=True)
    codec = jpeg_codec(cfg.backend)
    num_tiles, height, width, channels = tiles.shape
    augmented = np.empty((num_tiles, channels, height, width), np.uint8)
    for tile, quality, out in zip(tiles, qualities.tolist(), augmented, strict=True):
        codec.reencode(tile, quality, out)
    return augmented.transpose(0, 2, 3, 1)


def _decode_jpeg(data: bytes, key: str, codec: JpegCodec) -> NDArray[np.uint8] | None:
    """Decode an upright RGB JPEG to (H, W, 3); None for any other file, and for those that Pillow has to judge."""
    try:
        image = _open(data, key)
        if image.format != "JPEG" or image.mode != "RGB" or _orientation(image) != 1:
            return None
    except SampleError:
        raise
    except Exception:  # `decode_image` says what is wrong
        return None
    return codec.decode(data)


def _describe(error: Exception) -> str:
    """Say what is wrong with a file; without addresses of objects, so that a run's logs are the same each time."""
    if isinstance(error, UnidentifiedImageError):
        return "UnidentifiedImageError: cannot identify image file"
    return f"{type(error).__name__}: {error}"


def _open(data: bytes, key: str) -> Image.Image:
    """Read the header of an image file and refuse bombs before any pixel is decoded."""
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise SampleError(key, "decompression_bomb", str(error)) from error
    if image.width * image.height > MAX_PIXELS:
        raise SampleError(key, "decompression_bomb", f"{image.width} x {image.height} pixels, {MAX_PIXELS} allowed")
    return image


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation (1 = upright) of an image whose pixels are not loaded yet.

    Only an EXIF block of the header counts, so that `read_image_size` and `decode_image` always agree; a block that
    cannot be parsed counts as upright. TIFF keeps the tag elsewhere and Pillow turns such images itself.
    """
    if "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken EXIF block is no reason to lose a good picture
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode of Pillow to RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Image.fromarray(_scale_16_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer).convert("RGB")
    return image.convert("RGB")


def _scale_16_bit(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale grey values 0..65535 to 0..255, rounded; Pillow's own conversion would clip them at 255."""
    scaled: NDArray[np.uint8] = ((np.clip(grey.astype(np.int64), 0, 65535) + 128) // 257).astype(np.uint8)
    return scaled
