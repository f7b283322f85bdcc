"""What a task hands over: questions about pictures that are painted only if the draft is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from internvl_lab.data.miniworld.canvas import Canvas

NUM_BUCKETS = 8
_TRAIN_BUCKETS = {"pretrain": range(1, 8), "finetune": range(1, 8)}
_TEXT_BUCKETS = {"pretrain": range(1, 4), "finetune": range(4, 8)}


@dataclass(frozen=True)
class Question:
    """Hold one question and the only answer that counts."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Draft:
    """Describe a sample before it is painted, because most of `val`'s drafts are thrown away."""

    questions: tuple[Question, ...]
    """The first is the one `val` asks."""
    combinations: tuple[str, ...]
    """What determines the answers; the first belongs to the first question."""
    also: tuple[tuple[str, str], ...] = ()
    """(task, combination) of questions that belong to other tasks and are asked in training only."""
    dense: tuple[Question, ...] = ()
    """Ways to ask for everything that the picture holds."""
    worked: tuple[Question, ...] = ()
    """The same questions, asked for their steps; in training they take the place of the others as often as not."""
    sizes: tuple[tuple[int, int], ...] = ()
    """(width, height) in pixels of every picture."""
    scenes: tuple[str, ...] = ()
    """Symbolic description of every picture, for language pretraining."""
    paint: Callable[[], tuple[Canvas, ...]] = tuple
    """Paint the pictures, each (H, W, 3) uint8."""
    is_video: bool = False


def bucket(task: str, combination: str) -> int:
    """Return the bucket 0..7 of a combination; stable over Python versions and machines."""
    digest = hashlib.sha1(f"{task}|{combination}".encode()).digest()
    return digest[0] % NUM_BUCKETS


def fits_split(task: str, draft: Draft, split: str) -> bool:
    """Tell whether a draft may appear in a split.

    `val` asks only about bucket 0; the others never hold anything of bucket 0, not even beside
    the question. Text-only questions have no picture that tells them apart, so there `pretrain`
    and `finetune` share no bucket either.
    """
    if split == "val":
        return bucket(task, draft.combinations[0]) == 0
    allowed = (_TRAIN_BUCKETS if draft.sizes else _TEXT_BUCKETS)[split]
    asked = (*((task, combination) for combination in draft.combinations), *draft.also)
    return all(bucket(*pair) in allowed for pair in asked)
