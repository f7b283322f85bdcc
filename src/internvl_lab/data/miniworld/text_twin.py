"""Text twins: the same questions about a described scene, to pretrain a language model without pictures.

Where a sample shows a picture, its twin says `red ring at 1 2; blue ring at 2 2` and asks the same.
Twins are made from `pretrain` and `finetune` alone, so nothing of `val` reaches the language model.
"""

from __future__ import annotations

from collections.abc import Iterator

from internvl_lab.constants import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from internvl_lab.data.miniworld.sample import check_choice, make_sample
from internvl_lab.data.shards import RawSample
from internvl_lab.errors import ConfigError


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


def generate_text(split: str, num_samples: int, seed: int) -> Iterator[RawSample]:
    """Yield `num_samples` text samples, twins and text_only in turn by task; nothing is painted.

    Raises:
        ConfigError: a split other than `pretrain` and `finetune`.
    """
    if split not in ("pretrain", "finetune"):
        raise ConfigError(f"generate_text: split {split!r} must be pretrain or finetune")
    tasks = check_choice(split, ())
    for index in range(num_samples):
        raw = make_sample(split, index, seed, tasks[index % len(tasks)], with_images=False)
        yield text_twin(raw) or raw
