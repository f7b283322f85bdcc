"""Turn drafts into samples: pick one that its split allows, choose the turns, paint, and write the record.

::

    (seed, split, i, task) ──> Random ──> draft ──fits split?──> turns ──> record (authors' JSONL) + JPEG bytes
                                  ▲           no │
                                  └──────────────┘
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from internvl_lab.constants import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from internvl_lab.data.miniworld.canvas import encode_jpeg
from internvl_lab.data.miniworld.draft import Draft, Question, fits_split
from internvl_lab.data.miniworld.marks import recording, regions_of
from internvl_lab.data.miniworld.tasks_chart import chart
from internvl_lab.data.miniworld.tasks_language import text_only
from internvl_lab.data.miniworld.tasks_objects import attribute, captioning, counting, existence, grounding
from internvl_lab.data.miniworld.tasks_reasoning import reasoning
from internvl_lab.data.miniworld.tasks_sequence import multi_image, video
from internvl_lab.data.miniworld.tasks_text import document, ocr
from internvl_lab.data.miniworld.vocabulary import OPTIONAL_TASKS, SPLITS, TASKS
from internvl_lab.data.shards import RawSample
from internvl_lab.errors import ConfigError

DENSE_SHARE = 0.5
"""Share of `pretrain`'s pictures that are asked for everything they hold."""
WORKED_SHARE = 0.5
"""Share of the training samples of a task with worked questions that ask for the steps."""
MAX_WORKED = 2
"""Most questions that ask for their steps about one picture: their answers are long."""
MAX_TURNS = 6
"""Most questions about one picture in training: a picture costs far more tokens than one more answer."""

DRAW: dict[str, Callable[[Random, bool], Draft]] = {
    "captioning": captioning,
    "counting": counting,
    "attribute": attribute,
    "existence": existence,
    "ocr": ocr,
    "document": document,
    "chart": chart,
    "grounding": grounding,
    "multi_image": multi_image,
    "video": video,
    "text_only": text_only,
    "reasoning": reasoning,
}


def draw(split: str, index: int, seed: int, task: str) -> tuple[Draft, tuple[Question, ...]]:
    """Draw the draft of sample `index` and the questions to ask about it.

    `val` asks one question, directly. `finetune` asks up to six about the same picture, and so does
    `pretrain`, which puts a dense question first in half of the samples.
    """
    rng = Random(f"{seed}/{split}/{index}/{task}")
    dense = split == "pretrain" and task != "text_only" and rng.random() < DENSE_SHARE
    draft = DRAW[task](rng, dense)
    while not fits_split(task, draft, split):
        draft = DRAW[task](rng, dense)
    if split == "val":
        return draft, draft.questions[:1]
    if draft.worked and rng.random() < WORKED_SHARE:
        return draft, draft.worked[: rng.randint(1, MAX_WORKED)]
    if dense and draft.dense:
        return draft, (rng.choice(draft.dense), *draft.questions[: rng.randrange(4)])
    return draft, draft.questions[: rng.randint(2, MAX_TURNS)]


def _head(draft: Draft) -> str:
    """Return what stands before the first question: the placeholders of the pictures."""
    if draft.is_video:
        return f"{VIDEO_PLACEHOLDER}\n"
    if len(draft.sizes) > 1:
        return "".join(f"Image-{k}: {IMAGE_PLACEHOLDER}\n" for k in range(1, len(draft.sizes) + 1))
    return f"{IMAGE_PLACEHOLDER}\n" if draft.sizes else ""


def _image_fields(key: str, draft: Draft) -> dict[str, Any]:
    """Return the record's fields about its pictures. Source: spec section 7."""
    names = [f"{key}.{k}.jpg" for k in range(len(draft.sizes))]
    if not names:
        return {}
    widths, heights = [w for w, _ in draft.sizes], [h for _, h in draft.sizes]
    if draft.is_video:
        return {"video": key, "width_list": widths, "height_list": heights}
    if len(names) > 1:
        return {"image": names, "width_list": widths, "height_list": heights}
    return {"image": names[0], "width": widths[0], "height": heights[0]}


def build_record(key: str, task: str, draft: Draft, questions: Sequence[Question]) -> dict[str, Any]:
    """Write a draft as one record of the authors' JSONL.

    Beside the format's own fields it carries `task`, `answer` (of the first question),
    `combination` (what the split was decided by) and `scenes` (a description of each picture);
    `make_sample` adds `regions` ([x0, y0, x1, y1, words] of everything painted, by picture).
    """
    turns = []
    for number, question in enumerate(questions):
        turns.append({"from": "human", "value": ("" if number else _head(draft)) + question.prompt})
        turns.append({"from": "gpt", "value": question.answer})
    return {
        "id": key,
        **_image_fields(key, draft),
        "conversations": turns,
        "task": task,
        "answer": questions[0].answer,
        "combination": " & ".join(draft.combinations),
        "scenes": list(draft.scenes),
    }


def make_sample(split: str, index: int, seed: int, task: str, with_images: bool = True) -> RawSample:
    """Make one sample; its bytes depend on the arguments alone.

    Args:
        split: `pretrain`, `finetune` or `val`.
        index: number of the sample in its split.
        seed: of the whole dataset.
        task: one of `TASKS` or `OPTIONAL_TASKS`.
        with_images: paint and encode the pictures; without them only the record is made, much faster.
    """
    draft, questions = draw(split, index, seed, task)
    key = f"{split}-{index:06d}"
    record = build_record(key, task, draft, questions)
    if not with_images:
        return RawSample(key=key, record=record, images=())
    with recording() as marks:
        canvases = draft.paint()
    record["regions"] = regions_of(canvases, marks)
    return RawSample(key=key, record=record, images=tuple(("jpg", encode_jpeg(canvas)) for canvas in canvases))


def check_choice(split: str, tasks: Sequence[str]) -> tuple[str, ...]:
    """Return the tasks to generate, all but the optional ones if none is named.

    Raises:
        ConfigError: unknown split or task.
    """
    if split not in SPLITS:
        raise ConfigError(f"data.miniworld: split {split!r} must be one of {', '.join(SPLITS)}")
    known = (*TASKS, *OPTIONAL_TASKS)
    unknown = [task for task in tasks if task not in known]
    if unknown:
        raise ConfigError(f"data.miniworld.tasks: unknown {', '.join(unknown)}; choose from {', '.join(known)}")
    return tuple(tasks) or TASKS


def generate_range(split: str, start: int, stop: int, seed: int, tasks: Sequence[str] = ()) -> Iterator[RawSample]:
    """Yield the samples start..stop-1 of a split; tasks take turns.

    Raises:
        ConfigError: unknown split or task.
    """
    chosen = check_choice(split, tasks)
    for index in range(start, stop):
        yield make_sample(split, index, seed, chosen[index % len(chosen)])


def generate(split: str, num_samples: int, seed: int, tasks: Sequence[str] = ()) -> Iterator[RawSample]:
    """Yield the first `num_samples` samples of a split; sample i depends on (seed, split, i, tasks) alone.

    Raises:
        ConfigError: unknown split or task.
    """
    return generate_range(split, 0, num_samples, seed, tasks)
