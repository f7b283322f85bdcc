"""A task: questions with reference answers, and the metric that scores them.

::

    val shards ─ ShardIndex ─ records with a `task` field ─ one Task a name
      record ─> turns before the last answer (the prompt), `answer` (the reference), pictures read on demand
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from internvl_lab.data.frames import keep_frames, spread_frames
from internvl_lab.data.index import ShardIndex, load_or_build_index
from internvl_lab.data.records import Record, parse_record
from internvl_lab.data.scan import KINDS
from internvl_lab.data.transforms import decode_image
from internvl_lab.errors import ConfigError, SampleError
from internvl_lab.evaluation.metrics import JUDGES
from internvl_lab.text.template import ChatTemplate, Turn

VIDEO_FRAMES = 16
"""Most frames of a video that a question shows. Source: spec section 2, evaluation."""
TASK_METRICS = {"grounding": "iou_at_50"}
"""Metric of a task; all others are scored by `exact_match`."""


@dataclass(frozen=True)
class Question:
    """Hold one question; its pictures stay on disk until asked for."""

    key: str
    turns: tuple[Turn, ...]
    """Conversation up to the question, with `<image>` placeholders."""
    reference: str
    is_video: bool
    load_images: Callable[[], list[Image.Image]]
    """Read and decode the pictures (RGB), in placeholder order; raises SampleError."""

    @property
    def text(self) -> str:
        """Return the question itself, the last human turn."""
        return next(turn.text for turn in reversed(self.turns) if turn.role == "human")


@dataclass(frozen=True)
class Task:
    """Name a set of questions and how its answers are scored."""

    name: str
    questions: tuple[Question, ...]
    metric: str = "exact_match"

    def judge(self, prediction: str, reference: str) -> bool:
        """Say whether one answer is right."""
        return JUDGES[self.metric](prediction, reference)


def read_tasks(
    shards_dir: Path | str,
    template: ChatTemplate,
    names: Sequence[str] = (),
    limit: int | None = None,
    key: str = "evaluation.tasks",
) -> tuple[list[Task], ShardIndex]:
    """Collect the tasks that a folder of shards holds.

    Args:
        shards_dir: a folder or URLs of WebDataset tars whose records carry `task` and `answer`.
        template: makes the index (its token counts), nothing else.
        names: tasks wanted, in this order; empty = all, in order of appearance.
        limit: at most so many questions a task, the first in shard order.
        key: setting that the names come from, for messages.
    Returns:
        (tasks, the index they were read through).
    Raises:
        ConfigError: an unknown task name, or shards without any task.
        ShardError: no shards, or a broken one.
    """
    index = load_or_build_index(shards_dir, template)
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(index.task):
        if name:
            rows.setdefault(str(name), []).append(row)
    if not rows:
        raise ConfigError(f"evaluation: no record in {shards_dir} has a `task` field")
    unknown = [name for name in names if name not in rows]
    if unknown:
        raise ConfigError(f"{key}: unknown task {unknown[0]!r}; {shards_dir} holds {', '.join(rows)}")
    return [_build_task(index, name, rows[name][:limit]) for name in names or rows], index


def _build_task(index: ShardIndex, name: str, rows: Sequence[int]) -> Task:
    """Read the questions of one task."""
    questions = tuple(_read_question(index, row) for row in rows)
    return Task(name, questions, TASK_METRICS.get(name, "exact_match"))


def _read_question(index: ShardIndex, row: int) -> Question:
    """Parse one record and leave its pictures on disk."""
    raw, frames = json.loads(index.read_json(row)), _frames(index, row)
    record = parse_record(keep_frames(raw, frames), index.key[row], len(frames))
    prompt, answer = split_answer(record)
    reference = str(record.metadata.get("answer", answer))
    return Question(record.key, prompt, reference, record.is_video, partial(_load_images, index, row))


def split_answer(record: Record) -> tuple[tuple[Turn, ...], str]:
    """Split a conversation before its last answer.

    Returns:
        (turns of the prompt, text of the last answer).
    Raises:
        SampleError: no answer, or no question before it.
    """
    last = max((i for i, turn in enumerate(record.turns) if turn.role == "gpt"), default=0)
    prompt = record.turns[:last]
    if not any(turn.role == "human" for turn in prompt):
        raise SampleError(record.key, "no_answer", "a question followed by an answer is needed for scoring")
    return prompt, record.turns[last].text


def _load_images(index: ShardIndex, row: int) -> list[Image.Image]:
    """Read and decode the pictures of one sample."""
    images = index.images_of(row)
    return [decode_image(index.read_image(row, images[i]), index.key[row]) for i in _frames(index, row)]


def _frames(index: ShardIndex, row: int) -> list[int]:
    """Return which pictures of a sample are shown: of a video, `VIDEO_FRAMES` in the middle of equal parts."""
    count = len(index.images_of(row))
    return spread_frames(count, VIDEO_FRAMES if KINDS[index.kind[row]] == "video" else count)
