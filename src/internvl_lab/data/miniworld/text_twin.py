"""Text twins: the same questions about a described scene, to pretrain a language model without pictures.

Where a sample shows a picture, its twin says `red ring at 1 2; blue ring at 2 2` and asks the same.
Twins are made from `pretrain` and `finetune` alone, so nothing of `val` reaches the language model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from internvl_lab.constants import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from internvl_lab.data.miniworld.sample import make_sample
from internvl_lab.data.miniworld.vocabulary import TASKS
from internvl_lab.data.shards import RawSample
from internvl_lab.errors import ConfigError

TEXT_ONLY_EXTRA = ("text_only",) * 2
"""More turns of text_only than of the others: only here does the language model meet it often."""


def text_twin(raw: RawSample) -> RawSample | None:
    """Replace each picture of a sample by its description; None for a sample without pictures.

    Args:
        raw: a sample of this dataset; its images are not looked at and may be missing.
    Returns:
        A sample without images whose key ends in `-text`.
    """
    scenes = raw.record["scenes"]
    if not scenes:
        return None
    turns = [dict(turn) for turn in raw.record["conversations"]]
    text = turns[0]["value"]
    if VIDEO_PLACEHOLDER in text:
        frames = "\n".join(f"Frame-{k}: {IMAGE_PLACEHOLDER}" for k in range(1, len(scenes) + 1))
        text = text.replace(VIDEO_PLACEHOLDER, frames)
    for scene in scenes:
        text = text.replace(IMAGE_PLACEHOLDER, scene, 1)
    turns[0]["value"] = text
    kept = ("task", "answer", "combination")
    key = f"{raw.key}-text"
    record = {"id": key, "conversations": turns} | {name: raw.record[name] for name in kept}
    return RawSample(key=key, record=record, images=())


def text_sample(split: str, index: int, seed: int, tasks: Sequence[str] = TASKS) -> RawSample:
    """Make one text sample: a twin, or a text_only question under a key that ends in `-text` as well."""
    order = (*tasks, *TEXT_ONLY_EXTRA) if "text_only" in tasks else tuple(tasks)
    raw = make_sample(split, index, seed, order[index % len(order)], with_images=False)
    key = f"{raw.key}-text"
    return text_twin(raw) or RawSample(key=key, record=raw.record | {"id": key}, images=())


def text_range(start: int, stop: int, seed: int, tasks: Sequence[str] = TASKS) -> Iterator[RawSample]:
    """Yield the text samples start..stop-1, from `pretrain` and `finetune` in turn; tasks take turns in each."""
    for index in range(start, stop):
        yield text_sample(("pretrain", "finetune")[index % 2], index // 2, seed, tasks)


def generate_text(split: str, num_samples: int, seed: int) -> Iterator[RawSample]:
    """Yield `num_samples` text samples of one split, tasks in turn; nothing is painted.

    Raises:
        ConfigError: a split other than `pretrain` and `finetune`.
    """
    if split not in ("pretrain", "finetune"):
        raise ConfigError(f"generate_text: split {split!r} must be pretrain or finetune")
    for index in range(num_samples):
        yield text_sample(split, index, seed)
