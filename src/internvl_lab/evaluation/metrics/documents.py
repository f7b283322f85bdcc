"""Answers read off documents and charts: ANLS (DocVQA, InfoVQA) and relaxed accuracy (ChartQA)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from internvl_lab.evaluation.metrics.pairs import answers_of, edit_distance, share

ANLS_THRESHOLD = 0.5
RELAXED_TOLERANCE = 0.05


def anls_of(prediction: str, reference: Any) -> float:
    """Return 1 - edit distance / length for the closest reference, and 0 below 0.5 (0.5 itself counts).

    Distances are of lower-cased texts with single spaces, but the length is that of the longer raw text, so that
    superfluous white space costs: a quirk of the official script that is kept.
    Source: the Robust Reading Competition's `infographicsvqa_eval.py`, which the authors' `evaluate_vqa.py` calls.
    """
    distances = []
    for answer in answers_of(reference):
        length = max(len(answer.upper()), len(prediction.upper()))
        distance = edit_distance(_single_spaced(answer), _single_spaced(prediction))
        distances.append(distance / length if length else 0.0)
    similarity = 1 - min(distances)
    return similarity if similarity >= ANLS_THRESHOLD else 0.0


def _single_spaced(text: str) -> str:
    return " ".join(text.lower().split())


def anls(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"anls": average normalised Levenshtein similarity}.

    Args:
        references: a list of acceptable str, a str, or a dict with `answers` or `answer`.
    Raises:
        ValueError: no answers, not as many as references, or a reference without an answer.
    Source: see `anls_of`.
    """
    return {"anls": share(anls_of, predictions, references)}


def is_relaxed(prediction: str, reference: Any) -> bool:
    """Say whether a number lies within 5 % of a reference (5 % itself counts), or a text equals it but for case.

    `50%` is read as 0.5; commas, units and a trailing dot make a text of a number; against a reference of 0 only the
    same text is right.
    Source: pix2struct's `metrics.py`, `relaxed_correctness`, as in VLMEvalKit's `vqa_eval.py`.
    """
    return any(_within(answer, prediction.strip(), answer) for answer in answers_of(reference))


def is_relaxed_as_run(prediction: str, reference: Any) -> bool:
    """Say the same with the 5 % taken from the prediction, as the authors' script does.

    It hands the prediction over as the target, so that 95 against 100 is wrong (5.3 % of 95) and 105.2 is right.
    Source: authors' `internvl_chat/eval/vqa/evaluate_vqa.py`, `evaluate_relaxed_accuracy` (from Qwen-VL).
    """
    return any(_within(prediction.strip(), answer, prediction.strip()) for answer in answers_of(reference))


def _within(a: str, b: str, base: str) -> bool:
    """Compare two answers; the tolerance is a share of `base`, which is one of them."""
    first, second, scale = _to_float(a), _to_float(b), _to_float(base)
    if first is None or second is None or not scale:
        return a.lower() == b.lower()
    return abs(first - second) / abs(scale) <= RELAXED_TOLERANCE


def _to_float(text: str) -> float | None:
    """Read a number as Python does, percentages as shares."""
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def relaxed_accuracy(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"relaxed_accuracy", "relaxed_accuracy_as_run"}: shares of right answers.

    Args:
        references: a str, a list of acceptable str, or a dict with `answer`.
    Returns:
        The benchmark's rule, and the rule with the arguments swapped as the authors ran it.
    Raises:
        ValueError: no answers, or not as many as references.
    Source: see `is_relaxed` and `is_relaxed_as_run`.
    """
    return {
        "relaxed_accuracy": share(is_relaxed, predictions, references),
        "relaxed_accuracy_as_run": share(is_relaxed_as_run, predictions, references),
    }
