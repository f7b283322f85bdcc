"""Paint on small uint8 canvases with numpy: backgrounds, shapes, bars and text; then encode as JPEG.

Dimensions: H, W = height and width of a canvas in pixels. Canvases are (H, W, 3) uint8 RGB.
Every function is deterministic; what is random is passed in as numbers drawn by the caller.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from internvl_lab.data.miniworld.font import GLYPH_HEIGHT, GLYPH_WIDTH, glyph_mask
from internvl_lab.data.miniworld.marks import mark

Canvas = NDArray[np.uint8]
Color = tuple[int, int, int]

JPEG_QUALITY = 90
NOISE_AMPLITUDE = 6
SUPERSAMPLING = 3
_NOISE_SIZE = 660
_MAX_OFFSET = 200


@lru_cache(maxsize=1)
def _noise() -> NDArray[np.uint8]:
    """Draw one grey noise field for all backgrounds: a crop of it costs less than fresh noise."""
    generator = np.random.Generator(np.random.PCG64(20241206))
    return generator.integers(0, 2 * NOISE_AMPLITUDE + 1, (_NOISE_SIZE, _NOISE_SIZE), dtype=np.uint8)


def background(width: int, height: int, color: Color, noise_at: int) -> Canvas:
    """Fill a canvas with a colour and slight grey noise.

    Args:
        width, height: pixels, at most 460 each.
        color: channels within 6..249, so that the noise cannot overflow.
        noise_at: any non-negative integer; says which crop of the noise field is used.
    Returns:
        (H, W, 3) uint8.
    """
    x, y = noise_at % _MAX_OFFSET, noise_at // _MAX_OFFSET % _MAX_OFFSET
    crop = _noise()[y : y + height, x : x + width, None]
    base = np.array(color, dtype=np.uint8) - np.uint8(NOISE_AMPLITUDE)
    canvas: Canvas = crop + base
    return canvas


def _star(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Test points for lying in a five-pointed star that fills [-1, 1] x [-1, 1], by the even-odd rule."""
    angles = np.pi * np.arange(10) / 5
    radii = np.where(np.arange(10) % 2, 0.40, 1.0)
    px, py = radii * np.sin(angles), -radii * np.cos(angles)
    px = px / np.abs(px).max()
    py = 2 * (py - py.min()) / (py.max() - py.min()) - 1
    inside = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=np.bool_)
    for x0, y0, x1, y1 in zip(px, py, np.roll(px, -1), np.roll(py, -1), strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return inside


@lru_cache(maxsize=8192)
def shape_mask(shape: str, width: int, height: int) -> NDArray[np.uint8]:
    """Rasterise a shape that touches all four sides of its box, with smoothed edges.

    Args:
        shape: one of `vocabulary.SHAPES`.
        width, height: size of the box in pixels.
    Returns:
        (height, width) uint8 coverage 0..255, read-only because it is cached.
    Raises:
        ValueError: unknown shape.
    """
    k = SUPERSAMPLING
    x = ((np.arange(width * k) + 0.5) / (width * k) * 2 - 1)[None, :]
    y = ((np.arange(height * k) + 0.5) / (height * k) * 2 - 1)[:, None]
    if shape == "circle":
        inside = x**2 + y**2 <= 1
    elif shape == "square":
        inside = np.ones((height * k, width * k), dtype=np.bool_)
    elif shape == "triangle":
        inside = np.abs(x) <= (y + 1) / 2
    elif shape == "cross":
        inside = (np.abs(x) <= 0.3) | (np.abs(y) <= 0.3)
    elif shape == "ring":
        radius = x**2 + y**2
        inside = (radius <= 1) & (radius >= 0.58**2)
    elif shape == "star":
        inside = _star(x, y)
    else:
        raise ValueError(f"unknown shape {shape!r}")
    coverage = inside.reshape(height, k, width, k).mean(axis=(1, 3)) * 255
    mask: NDArray[np.uint8] = coverage.round().astype(np.uint8)
    mask.setflags(write=False)
    return mask


def paint_mask(canvas: Canvas, mask: NDArray[np.uint8], x: int, y: int, color: Color) -> None:
    """Blend a colour into a canvas in place; parts of the mask outside the canvas are cut off.

    Args:
        canvas: (H, W, 3) uint8.
        mask: (h, w) uint8 coverage 0..255.
        x, y: position of the mask's left upper corner; may be negative.
        color: RGB, 0..255.
    """
    height, width = canvas.shape[:2]
    left, top = max(0, -x), max(0, -y)
    mask = mask[top : max(0, height - y), left : max(0, width - x)]
    x, y = max(x, 0), max(y, 0)
    region = canvas[y : y + mask.shape[0], x : x + mask.shape[1]]
    alpha = mask[..., None].astype(np.int32)
    blend = region.astype(np.int32) * (255 - alpha) + np.array(color, dtype=np.int32) * alpha
    region[:] = (blend // 255).astype(np.uint8)


def paint_shape(canvas: Canvas, shape: str, box: tuple[int, int, int, int], color: Color) -> None:
    """Draw a shape into the box (x0, y0, x1, y1), in place; x1 and y1 are exclusive pixels."""
    x0, y0, x1, y1 = box
    paint_mask(canvas, shape_mask(shape, x1 - x0, y1 - y0), x0, y0, color)


def paint_rectangle(canvas: Canvas, box: tuple[int, int, int, int], color: Color) -> None:
    """Fill the box (x0, y0, x1, y1), exclusive at its end, in place."""
    x0, y0, x1, y1 = box
    canvas[y0:y1, x0:x1] = color


def paint_text(canvas: Canvas, text: str, x: int, y: int, scale: int, pitch: int, color: Color) -> None:
    """Write one line in the bitmap font, in place.

    Args:
        canvas: (H, W, 3) uint8.
        text: characters of the font.
        x, y: left upper corner of the first glyph.
        scale: pixels of one font pixel.
        pitch: pixels from one glyph's left edge to the next one's.
        color: RGB, 0..255.
    """
    for position, character in enumerate(text):
        if character != " ":
            left = x + position * pitch
            paint_mask(canvas, glyph_mask(character, scale), left, y, color)
            mark(canvas, (left, y, left + GLYPH_WIDTH * scale, y + GLYPH_HEIGHT * scale), character)


def text_size(text: str, scale: int, pitch: int) -> tuple[int, int]:
    """Return (width, height) in pixels that `paint_text` covers for a non-empty line."""
    return (len(text) - 1) * pitch + GLYPH_WIDTH * scale, GLYPH_HEIGHT * scale


def encode_jpeg(canvas: Canvas) -> bytes:
    """Encode a (H, W, 3) uint8 canvas as JPEG of quality 90."""
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
