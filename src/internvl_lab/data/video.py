"""Turn a video of the user's data into frames: a folder of numbered images, or an animated GIF.

Film files need a decoder that is not a dependency here; they are refused with a sentence that says what to do.
"""

from __future__ import annotations

import io
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from internvl_lab.errors import SampleError

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_LAST_NUMBER = re.compile(r"(\d+)(?!.*\d)")


def sample_frames(num_frames: int, min_frames: int, max_frames: int, rng: np.random.Generator) -> list[int]:
    """Draw which frames stand for a video: T uniform in min..max, then one random frame from each of T equal parts.

    A video with fewer frames than T gives all it has; the authors' code repeats the last frame instead, which costs
    tokens and shows nothing new.

    Returns:
        Rising frame numbers in 0..num_frames-1, at least one.
    Raises:
        ValueError: no frames, or limits that do not fit.
    Source: authors' `get_frame_indices(sample="rand")`; spec section 2.
    """
    if num_frames < 1 or not 1 <= min_frames <= max_frames:
        raise ValueError(f"num_frames={num_frames}, min_frames={min_frames}, max_frames={max_frames}")
    count = min(num_frames, int(rng.integers(min_frames, max_frames, endpoint=True)))
    edges = np.linspace(0, num_frames, count + 1).astype(int)
    return [int(rng.integers(low, high)) for low, high in pairwise(edges)]


def read_frames(
    path: Path, key: str, min_frames: int, max_frames: int, rng: np.random.Generator
) -> list[tuple[str, bytes]]:
    """Read the sampled frames of a video as (extension, file bytes).

    Frames of a folder keep their bytes; frames of a GIF become PNG, which loses nothing.

    Raises:
        SampleError: `missing_file`, `empty` (a folder without frames), `corrupt_image`, `video_format`.
    """
    if path.is_dir():
        files = sorted((f for f in path.iterdir() if f.suffix.lower() in FRAME_SUFFIXES), key=_frame_order)
        if not files:
            raise SampleError(key, "empty", f"folder {path} holds no frames ({', '.join(FRAME_SUFFIXES)})")
        chosen = [files[i] for i in sample_frames(len(files), min_frames, max_frames, rng)]
        return [(file.suffix.lower().lstrip("."), file.read_bytes()) for file in chosen]
    if not path.is_file():
        raise SampleError(key, "missing_file", f"video {path} does not exist")
    if path.suffix.lower() != ".gif":
        raise SampleError(key, "video_format", f"{path.name}: give a folder of frames or a GIF; extract films first")
    return [("png", data) for data in _gif_frames(path, key, min_frames, max_frames, rng)]


def _frame_order(file: Path) -> tuple[int, str]:
    """Sort by the last number in the name, as the authors' reader of frame folders does."""
    match = _LAST_NUMBER.search(file.stem)
    return (int(match.group(1)) if match else -1, file.name)


def _gif_frames(path: Path, key: str, min_frames: int, max_frames: int, rng: np.random.Generator) -> list[bytes]:
    """Decode the sampled frames of a GIF, in order."""
    try:
        with Image.open(path) as gif:
            count = int(getattr(gif, "n_frames", 1))
            wanted = set(sample_frames(count, min_frames, max_frames, rng))
            return [_png(frame) for i, frame in enumerate(ImageSequence.Iterator(gif)) if i in wanted]
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise SampleError(key, "corrupt_image", f"{path.name}: {error}") from error


def _png(frame: Image.Image) -> bytes:
    """Encode one frame without loss."""
    buffer = io.BytesIO()
    frame.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
