"""Choose the frames of a video anew in every epoch, and say beforehand what they cost.

The number of frames T is uniform in min..max, then one random frame stands for each of T equal parts. Both follow
from (seed, epoch, key) alone, so the plan knows T, and with it the tokens, before any frame is read.
Source: authors' `get_frame_indices(sample="rand")`; spec section 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from internvl_lab.constants import IMAGE_PLACEHOLDER
from internvl_lab.data.encoding import sample_rng
from internvl_lab.text.template import ChatTemplate, Turn


def draw_frames(num_frames: int, min_frames: int, max_frames: int, rng: np.random.Generator) -> list[int]:
    """Draw which frames stand for a video.

    A video with fewer frames than T gives all it has; the authors' code repeats the last frame instead, which costs
    tokens and shows nothing new.

    Returns:
        Rising frame numbers in 0..num_frames-1, at least one.
    Raises:
        ValueError: no frames, or limits that do not fit.
    """
    count = draw_count(num_frames, min_frames, max_frames, rng)
    edges = np.linspace(0, num_frames, count + 1).astype(int)
    return [int(rng.integers(low, high)) for low, high in pairwise(edges)]


def draw_count(num_frames: int, min_frames: int, max_frames: int, rng: np.random.Generator) -> int:
    """Draw the number of frames only: the length of what `draw_frames` returns for the same `rng`.

    Raises:
        ValueError: as in `draw_frames`.
    """
    if num_frames < 1 or not 1 <= min_frames <= max_frames:
        raise ValueError(f"num_frames={num_frames}, min_frames={min_frames}, max_frames={max_frames}")
    return min(num_frames, int(rng.integers(min_frames, max_frames, endpoint=True)))


def spread_frames(num_frames: int, count: int) -> list[int]:
    """Return the middle frames of `count` equal parts, or all frames where there are no more.

    Source: authors' `get_frame_indices(sample="middle")`, their choice for evaluation.
    """
    if num_frames <= count:
        return list(range(num_frames))
    return [int((part + 0.5) * num_frames / count) for part in range(count)]


def frame_rng(seed: int, epoch: int, key: str, copy: int = 0) -> np.random.Generator:
    """Return the generator that draws the frames of one sample in one epoch; `copy` as in `sample_rng`."""
    return sample_rng(seed, epoch, f"{key}/frames", copy)


def keep_frames(raw: Mapping[str, Any], frames: Sequence[int]) -> dict[str, Any]:
    """Return a video's record with the chosen frames only; a video that is one path needs no change."""
    video = raw.get("video")
    return {**raw, "video": [video[i] for i in frames]} if isinstance(video, list) else dict(raw)


def frame_line_tokens(template: ChatTemplate, max_frames: int) -> NDArray[np.int32]:
    """Count the text tokens that the lines of further frames add to a video's question.

    Returns:
        (max_frames+1,) int32: entry T is what T frames cost beyond the first; entries 0 and 1 are 0.
    """

    def length(text: str) -> int:
        """Encode one question and count its tokens."""
        return template.turn_lengths([Turn("human", text)], [0] * text.count(IMAGE_PLACEHOLDER))[1][0]

    alone = length(f"{IMAGE_PLACEHOLDER}\n")
    lines = [length(f"{IMAGE_PLACEHOLDER}\nFrame-{k}: {IMAGE_PLACEHOLDER}\n") - alone for k in range(2, max_frames + 1)]
    return np.cumsum([0, 0, *lines])[: max_frames + 1].astype(np.int32)
