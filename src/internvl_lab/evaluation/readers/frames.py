"""Take evenly spread frames out of a video: a folder of frames, a GIF, or a film (extra `[video]`).

Evaluation looks at the same frames every time, unlike training (`data.video`), which draws them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageSequence

from internvl_lab.data.transforms import decode_image
from internvl_lab.data.video import FRAME_SUFFIXES
from internvl_lab.errors import ConfigError, SampleError

FOLDER_FPS = 3.0
"""Frames a second of a folder of frames. Source: authors' `evaluate_mvbench.py`, `read_frame`."""
GIF_FPS = 25.0
_LAST_NUMBER = re.compile(r"(\d+)(?!.*\d)")


def spread_frames(num_frames: int, wanted: int, fps: float, bound: tuple[float, float] | None = None) -> list[int]:
    """Choose the middle frame of each of `wanted` equal parts of a video, or of the part between two seconds.

    Returns:
        Rising frame numbers; all of them, and not some twice, where the video has no more than wanted.
    Raises:
        ValueError: no frames or none wanted.
    Source: authors' `internvl_chat/eval/mvbench/evaluate_mvbench.py`, `get_index`.
    """
    if num_frames < 1 or wanted < 1:
        raise ValueError(f"num_frames={num_frames}, wanted={wanted}")
    last = num_frames - 1
    start, end = (0, last) if bound is None else (max(0, round(bound[0] * fps)), min(round(bound[1] * fps), last))
    if 0 <= end - start < wanted:
        return list(range(start, end + 1))
    part = (end - start) / wanted
    chosen = (int(start + part / 2 + round(part * i)) for i in range(wanted))
    return list(dict.fromkeys(min(max(index, 0), last) for index in chosen))


def read_video(path: Path, key: str, num_frames: int, bound: tuple[float, float] | None = None) -> list[Image.Image]:
    """Read evenly spread frames of a video as RGB pictures.

    Args:
        path: folder of numbered frames, .gif, or a film.
        key: the question's key, for messages.
        num_frames: frames wanted.
        bound: (start, end) in seconds of the part that the question is about; None = all.
    Raises:
        SampleError: `missing_file`, `empty` or `corrupt_video`.
        ConfigError: a film, and PyAV is missing.
    """
    if path.is_dir():
        return _from_folder(path, key, num_frames, bound)
    if not path.is_file():
        raise SampleError(key, "missing_file", f"video {path} does not exist")
    try:
        return (
            _from_gif(path, num_frames, bound) if path.suffix.lower() == ".gif" else _from_film(path, num_frames, bound)
        )
    except (OSError, ValueError, EOFError, SyntaxError, IndexError) as error:  # IndexError: sound without a picture
        raise SampleError(key, "corrupt_video", f"{path.name}: {error}") from error


def _from_folder(path: Path, key: str, wanted: int, bound: tuple[float, float] | None) -> list[Image.Image]:
    """Read frames that are files, in the order of the last number of their names."""
    files = sorted((f for f in path.iterdir() if f.suffix.lower() in FRAME_SUFFIXES), key=_number)
    if not files:
        raise SampleError(key, "empty", f"folder {path} holds no frames ({', '.join(FRAME_SUFFIXES)})")
    return [decode_image(files[i].read_bytes(), key) for i in spread_frames(len(files), wanted, FOLDER_FPS, bound)]


def _number(file: Path) -> tuple[int, str]:
    match = _LAST_NUMBER.search(file.stem)
    return (int(match[1]) if match else -1, file.name)


def _from_gif(path: Path, wanted: int, bound: tuple[float, float] | None) -> list[Image.Image]:
    """Decode the chosen frames of a GIF."""
    with Image.open(path) as gif:
        chosen = set(spread_frames(int(getattr(gif, "n_frames", 1)), wanted, GIF_FPS, bound))
        return [frame.convert("RGB") for i, frame in enumerate(ImageSequence.Iterator(gif)) if i in chosen]


def _from_film(path: Path, wanted: int, bound: tuple[float, float] | None) -> list[Image.Image]:
    """Decode a film from its beginning up to the last chosen frame."""
    av = _load_av(path)
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        total = stream.frames or _count(path)
        chosen = spread_frames(total, wanted, float(stream.average_rate or GIF_FPS), bound)
        return _pick(film.decode(stream), chosen)


def _load_av(path: Path) -> Any:
    """Import PyAV, which is optional."""
    try:
        import av

        return av
    except ImportError as error:
        raise ConfigError(f"{path.name} is a film: install the extra, pip install 'internvl-lab[video]'") from error


def _pick(frames: Iterable[Any], chosen: Sequence[int]) -> list[Image.Image]:
    """Keep the chosen frames of a stream."""
    held: list[Image.Image] = []
    for number, frame in enumerate(frames):
        if number in chosen:
            held.append(frame.to_image().convert("RGB"))
        if number >= chosen[-1]:
            break
    if not held:
        raise ValueError("no frame could be decoded")
    return held


def _count(path: Path) -> int:
    """Count the frames of a film whose header does not say."""
    with _load_av(path).open(str(path)) as film:
        return sum(1 for _ in film.decode(film.streams.video[0]))
