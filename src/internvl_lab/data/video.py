"""Store the frames of a user's video as images: from a folder of numbered images, an animated GIF, or a video file.

```
video ── count frames (of the clip) ── `stored` of them, evenly spread ──> (extension, bytes) each ──> shard
                                                                             training draws from these (`frames`)
```

A video with no more frames than are stored keeps them all, so that the rule of `frames` is exact; of a longer one,
each stored frame stands for an equal part. Video files are read by PyAV (extra `video`), which decodes from the
nearest key frame on, and turned upright.
"""

from __future__ import annotations

import io
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageSequence

from internvl_lab.constants import STORED_FRAMES
from internvl_lab.data.frames import spread_frames
from internvl_lab.data.transforms import MAX_PIXELS
from internvl_lab.errors import ConfigError, SampleError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
FRAME_QUALITY = 95
"""JPEG quality of the frames of video files, which are lossy themselves."""
MIN_DECODABLE = 0.9
"""A file that holds a smaller share of the frames that its header claims is cut."""
_LAST_NUMBER = re.compile(r"(\d+)(?!.*\d)")

Clip = tuple[float, float]
"""(start, end) in seconds."""


def read_frames(path: Path, key: str, stored: int = STORED_FRAMES, clip: Clip | None = None) -> list[tuple[str, bytes]]:
    """Read the frames of a video that are stored, as (extension, file bytes).

    Frames of a folder keep their bytes; those of a GIF become PNG, which loses nothing, those of a file JPEG.

    Args:
        stored: most frames.
        clip: part of a video file.
    Raises:
        SampleError: `missing_file`, `empty` (no frames), `corrupt_image`, `corrupt_video`, `video_clip`,
            `decompression_bomb`.
        ConfigError: a video file, and PyAV is not installed.
    """
    is_file = path.is_file() and path.suffix.lower() != ".gif"
    if clip is not None and not is_file and path.exists():
        raise SampleError(key, "video_clip", "`clip` is in seconds, which frames and GIFs do not count: cut them first")
    if path.is_dir():
        return _folder_frames(path, key, stored)
    if not path.is_file():
        raise SampleError(key, "missing_file", f"video {path} does not exist")
    if is_file:
        return [("jpg", data) for data in _file_frames(path, key, stored, clip)]
    return [("png", data) for data in _gif_frames(path, key, stored)]


def parse_clip(value: object, key: str) -> Clip | None:
    """Read the field `clip` of a record: null or [start, end] in seconds.

    Raises:
        SampleError: `video_clip`.
    """
    if value is None:
        return None
    if (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(t, int | float) and not isinstance(t, bool) for t in value)
        and 0 <= value[0] < value[1]
    ):
        return float(value[0]), float(value[1])
    raise SampleError(key, "video_clip", f"clip={value!r} must be [start, end] in seconds")


def _folder_frames(path: Path, key: str, stored: int) -> list[tuple[str, bytes]]:
    """Read the frames of a folder, in the order of their numbers."""
    files = sorted((f for f in path.iterdir() if f.suffix.lower() in FRAME_SUFFIXES), key=_frame_order)
    if not files:
        raise SampleError(key, "empty", f"folder {path} holds no frames ({', '.join(FRAME_SUFFIXES)})")
    chosen = [files[i] for i in spread_frames(len(files), stored)]
    return [(file.suffix.lower().lstrip("."), file.read_bytes()) for file in chosen]


def _frame_order(file: Path) -> tuple[int, str]:
    """Sort by the last number in the name, as the authors' reader of frame folders does."""
    match = _LAST_NUMBER.search(file.stem)
    return (int(match.group(1)) if match else -1, file.name)


def _gif_frames(path: Path, key: str, stored: int) -> list[bytes]:
    """Decode the stored frames of a GIF, in order."""
    try:
        with Image.open(path) as gif:
            count = int(getattr(gif, "n_frames", 1))
            wanted = set(spread_frames(count, stored))
            return [_encoded(frame, "PNG") for i, frame in enumerate(ImageSequence.Iterator(gif)) if i in wanted]
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise SampleError(key, "corrupt_image", f"{path.name}: {error}") from error


def _file_frames(path: Path, key: str, stored: int, clip: Clip | None) -> list[bytes]:
    """Decode the stored frames of a video file, in order."""
    try:
        import av
    except ImportError as error:
        raise ConfigError(
            f"reading video files such as {path.name} needs PyAV: pip install 'internvl-lab[video]', then go on with "
            "the same command"
        ) from error
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0] if container.streams.video else None
            if stream is None or stream.codec_context is None:
                raise SampleError(key, "corrupt_video", f"{path.name} has no video that can be decoded")
            if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
                raise SampleError(key, "decompression_bomb", f"{path.name}: frames of more than {MAX_PIXELS} pixels")
            times, keys = _times(container, stream, path, key, clip)
            chosen = [times[i] for i in spread_frames(len(times), stored)]
            frames = [_encoded(image, "JPEG") for image in _decoded(container, stream, chosen, keys)]
    except (av.error.FFmpegError, ValueError, OverflowError) as error:
        raise SampleError(key, "corrupt_video", f"{path.name}: {error}") from error
    if not frames:
        raise SampleError(key, "corrupt_video", f"{path.name}: no frame can be decoded")
    return frames


def _times(
    container: InputContainer, stream: VideoStream, path: Path, key: str, clip: Clip | None
) -> tuple[list[int], list[int]]:
    """Return the time stamps of all frames of the clip and those of all key frames, rising; nothing is decoded."""
    packets = [(packet.pts, packet.is_keyframe) for packet in container.demux(stream) if packet.pts is not None]
    times = sorted({pts for pts, _ in packets})
    if _is_cut(container, stream, times):
        raise SampleError(key, "corrupt_video", f"{path.name} ends after {len(times)} frames, before its header says")
    if clip is not None and stream.time_base:
        first = stream.start_time or 0
        low, high = (first + second / float(stream.time_base) for second in clip)
        times = [pts for pts in times if low <= pts <= high]
    if not times:
        where = "" if clip is None else f" between {clip[0]} and {clip[1]} s"
        raise SampleError(key, "video_clip" if clip else "corrupt_video", f"{path.name} has no frame{where}")
    return times, sorted(pts for pts, is_key in packets if is_key)


def _is_cut(container: InputContainer, stream: VideoStream, times: Sequence[int]) -> bool:
    """Compare what is there with the number of frames in the header, or with the duration where it has no number."""
    if stream.frames:
        return len(times) < MIN_DECODABLE * stream.frames
    if len(times) < 2 or len(container.streams) > 1 or not container.duration or not stream.time_base:
        return False  # the duration is that of the longest stream
    lasts_s = (times[-1] - times[0]) * float(stream.time_base) * len(times) / (len(times) - 1)
    return lasts_s < MIN_DECODABLE * container.duration / 1e6


def _decoded(container: InputContainer, stream: VideoStream, chosen: Sequence[int], keys: list[int]) -> Iterator[Any]:
    """Yield the frames at the chosen time stamps as images, jumping to a key frame where that saves decoding."""
    container.seek(min([*keys[:1], chosen[0]]), stream=stream)
    frames: Iterator[Any] = container.decode(stream)
    position = -(2**62)
    for wanted in chosen:
        if position >= wanted:  # a packet without a picture; the frame behind it has been given
            continue
        nearest = keys[bisect_right(keys, wanted) - 1] if keys and keys[0] <= wanted else None
        if nearest is not None and nearest > position:
            container.seek(nearest, stream=stream)
            frames = container.decode(stream)
        for frame in frames:
            position = frame.pts if frame.pts is not None else position
            if position >= wanted:
                yield frame.to_image().rotate(frame.rotation, expand=True)
                break


def _encoded(image: Image.Image, kind: str) -> bytes:
    """Encode one frame."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, kind, **({"quality": FRAME_QUALITY} if kind == "JPEG" else {}))
    return buffer.getvalue()
