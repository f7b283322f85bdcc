"""JPEG codecs: Pillow, and a faster pair (simplejpeg, OpenCV; extra `[fast]`) that gives the same bits.

```
file bytes ── decode ──> (H, W, 3) or None: "ask Pillow"        tile ── reencode(quality) ──> (3, H, W), in place
```

All three wrap libjpeg-turbo, so decoding and encoding agree bit by bit; only the way around it differs (fewer copies:
a tile takes 1.0 instead of 1.4 ms, a worker a third less CPU time). `jpeg_codec` proves it on this machine's builds
before it hands the faster pair out, because a data stream must not depend on what is installed. Whatever simplejpeg
warns about or refuses goes to Pillow, so that strictness and errors are Pillow's too.
"""

from __future__ import annotations

import io
import logging
from functools import lru_cache
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from internvl_lab.errors import ConfigError

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]

_PROOF_QUALITIES = (75, 90, 95, 96, 100)
_PROOF_SUBSAMPLINGS = (0, 1, 2)
"""4:4:4, 4:2:2 and 4:2:0, as Pillow numbers them."""


class JpegCodec(Protocol):
    """Decode JPEG files and pass tiles through JPEG."""

    name: str

    def decode(self, data: bytes) -> Pixels | None:
        """Decode a sound three-channel JPEG to (H, W, 3); None where Pillow has to look at the file."""

    def reencode(self, tile: Pixels, quality: int, out: Pixels) -> None:
        """Pass a tile (H, W, 3) through JPEG, 4:2:0 chroma, into `out` (3, H, W)."""


class PillowCodec:
    """Use Pillow alone."""

    name = "pillow"

    def decode(self, data: bytes) -> Pixels | None:
        """Leave every file to `transforms.decode_image`; the result would be (H, W, 3)."""
        return None

    def reencode(self, tile: Pixels, quality: int, out: Pixels) -> None:
        """Pass a tile (H, W, 3) through JPEG into `out` (3, H, W)."""
        buffer = io.BytesIO()
        Image.fromarray(tile).save(buffer, "JPEG", quality=quality)
        out.transpose(1, 2, 0)[...] = np.asarray(Image.open(buffer, formats=("JPEG",)))


class FastCodec:
    """Decode with simplejpeg, encode with OpenCV.

    Raises:
        ImportError: one of them is missing.
    """

    name = "fast"

    def __init__(self) -> None:
        self._cv2: Any = import_module("cv2")
        self._cv2.setNumThreads(1)  # a worker has one core
        self._decode: Any = import_module("simplejpeg").decode_jpeg

    def decode(self, data: bytes) -> Pixels | None:
        """Decode to (H, W, 3); None for whatever libjpeg finds a fault with."""
        try:
            pixels: Pixels = self._decode(data, "RGB", strict=True)
        except ValueError:
            return None
        return pixels

    def reencode(self, tile: Pixels, quality: int, out: Pixels) -> None:
        """Pass a tile (H, W, 3) through JPEG into `out` (3, H, W)."""
        cv2 = self._cv2
        _, data = cv2.imencode(".jpg", cv2.cvtColor(tile, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, quality))
        cv2.split(self._decode(data, "RGB"), list(out))  # 10 times faster than numpy's strided copy


@lru_cache
def jpeg_codec(backend: str) -> JpegCodec:
    """Return the codec of a backend; `auto` is `fast` where that is installed and proves itself.

    Raises:
        ConfigError: `fast` is not installed or not bit-identical here, or an unknown name.
    """
    if backend == "pillow":
        return PillowCodec()
    if backend not in ("auto", "fast"):
        raise ConfigError(f"data.jpeg.backend={backend!r} must be auto, pillow or fast")
    try:
        codec, reason = FastCodec(), "simplejpeg or OpenCV gives other bits than Pillow on this machine"
        if same_bits(codec):
            return codec
    except ImportError as error:
        reason = f"{error}: pip install 'internvl-lab[fast]'"
    if backend == "fast":
        raise ConfigError(f"data.jpeg.backend=fast: {reason}")
    logger.info("JPEG goes through Pillow (%s)", reason)
    return PillowCodec()


def same_bits(codec: JpegCodec) -> bool:
    """Tell whether a codec gives Pillow's bits on noise of odd size, at the qualities where libraries part ways."""
    noise = np.random.default_rng(0).integers(0, 256, (45, 61, 3), np.uint8)
    pillow = PillowCodec()
    for quality in _PROOF_QUALITIES:
        for subsampling in _PROOF_SUBSAMPLINGS:
            buffer = io.BytesIO()
            Image.fromarray(noise).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
            decoded = codec.decode(buffer.getvalue())
            if decoded is None or not np.array_equal(decoded, np.asarray(Image.open(buffer))):
                return False
        ours, theirs = np.empty((2, 3, 45, 61), np.uint8)
        codec.reencode(noise, quality, ours)
        pillow.reencode(noise, quality, theirs)
        if not np.array_equal(ours, theirs):
            return False
    return True
