"""MIRB: eleven tasks with three ways to compare, averaged over four groups."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from internvl_lab.evaluation.metrics.pairs import answers_of, average, field, paired

GROUPS = {
    "knowledge": ("food", "sightseeing"),
    "reasoning": ("codeu", "plot_code", "analogy", "3d_scene"),
    "perception": ("image_jigsaw", "count", "attribute"),
    "multi_hop": ("visual_chain", "arxiv"),
}
_YES_NO = ("analogy", "attribute")
_CONTAINED = ("sightseeing",)
_NUMBERS = ("count", "visual_chain", "3d_scene", "image_needles")
_CONCATENATED = "_concat"
"""End of the name of a task whose pictures are joined into one; such tasks are in no group."""
_WORDS = (
    ("zero",),
    ("one", "first"),
    ("two", "second"),
    ("three", "third"),
    ("four", "fourth"),
    ("five", "fifth"),
    ("six", "sixth"),
    ("seven", "seventh"),
    ("eight", "eighth"),
    ("nine", "ninth"),
    ("ten", "tenth"),
)
_NUMBER_OF = {word: str(number) for number, words in enumerate(_WORDS) for word in words}


def is_mirb(prediction: str, reference: Any) -> bool:
    """Say whether an answer is right by the rule of its task.

    Args:
        reference: a dict with `answer`, and the task as `task` or as the name of its `file`.
    Source: authors' `internvl_chat/eval/mirb/evaluate_mirb.py`: `exact_yes_no`, `exact_in_match`, `exact_match`.
    """
    task = str(field(reference, "task", "file"))
    answer, text = answers_of(reference)[0].lower(), _first_sentence(prediction).lower()
    if task in _YES_NO or (task in _CONTAINED and answer in ("yes", "no")):
        return answer in ("yes", "no") and ("yes" in text) == (answer == "yes")
    if task in _CONTAINED:
        return answer in text
    if task.removesuffix(_CONCATENATED) in _NUMBERS:
        digits = re.search(r"\d+", text)
        text = digits.group() if digits else _NUMBER_OF.get(text, "")
    return text == answer


def mirb(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"mirb": mean of the groups, one score a group}: a group is the mean of its tasks, without weights.

    Args:
        references: see `is_mirb`.
    Returns:
        Only groups, and of these only tasks, that were asked; other files of MIRB count nowhere.
    Raises:
        ValueError: no answers, not as many as references, or no task.
    Source: see `is_mirb`.
    """
    tasks: dict[str, list[bool]] = {}
    for prediction, reference in paired(predictions, references):
        tasks.setdefault(str(field(reference, "task", "file")), []).append(is_mirb(prediction, reference))
    scores = {
        group: average(average(tasks[task]) for task in members if task in tasks)
        for group, members in GROUPS.items()
        if any(task in tasks for task in members)
    }
    return {"mirb": average(scores.values()), **scores}


def _first_sentence(prediction: str) -> str:
    """Cut an answer at its first line break, else at its first point; a leading one cuts nothing."""
    text = prediction.strip()
    end = text.find("\n")
    end = end if end > 0 else text.find(".")
    return text[:end] if end > 0 else text
