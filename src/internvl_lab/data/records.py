"""Turn one line of the authors' JSONL into a validated record.

```
{"conversations": [...], "image": ...} ── parse_record ──> Record(turns with <image> in place, image names, metadata)
```

Rules: spec section 7 (authors' `chat_data_format.md`) and, for video, `video_get_item` in the authors' script.
A fault condemns this record only, as a `SampleError` with a short reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_lab.constants import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from internvl_lab.errors import SampleError
from internvl_lab.text.template import Turn

ROLES = ("system", "human", "gpt")
"""Speakers of a conversation, as the authors' format names them."""


@dataclass(frozen=True)
class Record:
    """Hold one validated record; `<image>` stands exactly once per image in the human turns."""

    key: str
    turns: tuple[Turn, ...]
    images: tuple[str, ...]
    """Names of the images in placeholder order; a video's are its frames."""
    is_video: bool
    metadata: Mapping[str, Any]
    """All other fields of the JSON object, for example `task` and `answer`."""
    max_tokens: int | None = None
    """The encoder cuts the end of the text at this many tokens; None = nowhere. See `long_samples`."""


def parse_record(raw: Mapping[str, Any], key: str, num_images: int | None = None) -> Record:
    """Validate one JSON object of the authors' format.

    Args:
        raw: the parsed JSON object.
        key: the sample's key, named in every error.
        num_images: images that are present, where known (members of the shard, frames of a video); needed for a
            record whose video is a single path.
    Raises:
        SampleError: `bad_json` (structure), `empty` (nobody asks or answers), `mixed_media`, `missing_member`
            (listed images differ from those present), `image_count` (placeholders differ from images),
            `video_frames` (frames of the video unknown).
    """
    if not isinstance(raw, Mapping):
        raise SampleError(key, "bad_json", f"a record is a JSON object, not {type(raw).__name__}")
    turns = _parse_turns(raw.get("conversations"), key)
    names, is_video = _image_names(raw, key, num_images)
    placed = _place_frames(turns, len(names), key) if is_video else _place_images(turns, len(names), key)
    metadata = {name: value for name, value in raw.items() if name not in ("conversations", "image", "video")}
    return Record(key, tuple(placed), names, is_video, metadata)


def read_jsonl(path: Path | str) -> Iterator[tuple[int, dict[str, Any] | SampleError]]:
    """Stream a JSONL file as (line number from 1, object); blank lines are skipped.

    A line that is not a JSON object is yielded as a `SampleError` in place of the object, not raised, so that the
    caller can count it and read on.
    """
    path = Path(path)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield number, parse_line(line, f"{path.name}:{number}")
                except SampleError as error:
                    yield number, error


def parse_line(line: bytes, key: str) -> dict[str, Any]:
    """Parse one JSON object.

    Raises:
        SampleError: `bad_json`.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SampleError(key, "bad_json", str(error)) from error
    if not isinstance(value, dict):
        raise SampleError(key, "bad_json", "not a JSON object")
    return value


def _parse_turns(conversations: object, key: str) -> list[Turn]:
    """Read the conversation; the roles are checked, their alternation is left to the data, as in the authors' code."""
    if not isinstance(conversations, list):
        raise SampleError(key, "bad_json", "`conversations` is missing or not a list")
    turns = []
    for position, turn in enumerate(conversations):
        role = turn.get("from") if isinstance(turn, Mapping) else None
        value = turn.get("value") if isinstance(turn, Mapping) else None
        if role not in ROLES or not isinstance(value, str):
            raise SampleError(key, "bad_json", f"turn {position} needs `from` ({', '.join(ROLES)}) and a text `value`")
        if role == "system" and position > 0:
            raise SampleError(key, "bad_json", f"turn {position} is a system turn; only the first may be")
        turns.append(Turn(role, value))
    for role in ("human", "gpt"):
        if not any(turn.role == role and turn.text.strip() for turn in turns):
            raise SampleError(key, "empty", f"no {role} turn with text")
    return turns


def _image_names(raw: Mapping[str, Any], key: str, num_images: int | None) -> tuple[tuple[str, ...], bool]:
    """Return the names of the images (of a video: its frames) and whether they are a video."""
    images, video = _names(raw.get("image"), "image", key), _names(raw.get("video"), "video", key)
    if images and video:
        raise SampleError(key, "mixed_media", "a record has images or a video, not both")
    if len(video) == 1 and isinstance(raw["video"], str):  # one path: how many frames it holds is known only outside
        if num_images is None:
            raise SampleError(key, "video_frames", f"the number of frames of {video[0]} is unknown")
        if num_images == 0:
            raise SampleError(key, "missing_member", f"no frame of {video[0]} is present")
        return tuple(f"{video[0]}#{frame}" for frame in range(num_images)), True
    names = video or images
    if num_images is None or num_images == len(names):
        return names, bool(video)
    if names:
        raise SampleError(key, "missing_member", f"{len(names)} images listed, {num_images} present")
    return tuple(f"{key}.{image}" for image in range(num_images)), False


def _names(value: object, field: str, key: str) -> tuple[str, ...]:
    """Read a field that is a path, a list of paths, or absent."""
    if value is None or value == "":
        return ()
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise SampleError(key, "bad_json", f"`{field}` must be a path or a list of paths")
    return tuple(names)


def _count(turns: list[Turn], placeholder: str) -> int:
    """Count a placeholder in the human turns; elsewhere it is ordinary text."""
    return sum(turn.text.count(placeholder) for turn in turns if turn.role == "human")


def _prepend(turns: list[Turn], text: str) -> list[Turn]:
    """Put text before the first human turn."""
    first = next(i for i, turn in enumerate(turns) if turn.role == "human")
    return [*turns[:first], Turn("human", text + turns[first].text), *turns[first + 1 :]]


def _place_images(turns: list[Turn], num_images: int, key: str) -> list[Turn]:
    """Ensure one `<image>` per image; a single image without one is put first."""
    found = _count(turns, IMAGE_PLACEHOLDER)
    if num_images == 1 and found == 0:
        return _prepend(turns, IMAGE_PLACEHOLDER + "\n")
    if found != num_images:
        raise SampleError(key, "image_count", f"{found} {IMAGE_PLACEHOLDER} in the text, {num_images} images")
    return turns


def _place_frames(turns: list[Turn], num_frames: int, key: str) -> list[Turn]:
    """Replace `<video>` by one `Frame-k: <image>` line per frame. Source: authors' `video_get_item`."""
    found = _count(turns, VIDEO_PLACEHOLDER)
    if found > 1 or _count(turns, IMAGE_PLACEHOLDER):
        raise SampleError(key, "image_count", f"a video needs one {VIDEO_PLACEHOLDER} and no {IMAGE_PLACEHOLDER}")
    if found == 0:
        turns = _prepend(turns, VIDEO_PLACEHOLDER + "\n")
    frames = "\n".join(f"Frame-{k}: {IMAGE_PLACEHOLDER}" for k in range(1, num_frames + 1)) + "\n"
    return [Turn(turn.role, _replace_video(turn.text, frames)) if turn.role == "human" else turn for turn in turns]


def _replace_video(text: str, frames: str) -> str:
    """Swap `<video>`, with the newline that follows it, if any, for the frame lines."""
    return text.replace(VIDEO_PLACEHOLDER + "\n", frames).replace(VIDEO_PLACEHOLDER, frames)
