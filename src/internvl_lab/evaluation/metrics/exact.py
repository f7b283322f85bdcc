"""Equality of short answers: ours for miniworld, the authors' for VQA sets, and GQA's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from internvl_lab.evaluation.metrics.pairs import answers_of, share


def normalise_answer(text: str) -> str:
    """Strip the text and make every run of white space one space; case and punctuation count."""
    return " ".join(text.split())


def is_exact(prediction: str, reference: Any) -> bool:
    """Say whether a text equals one of the references but for white space."""
    return normalise_answer(prediction) in map(normalise_answer, answers_of(reference))


def exact_match(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"exact_match": share of answers equal to a reference but for white space}; case counts.

    Args:
        references: a str, a list of acceptable str, or a dict with `answer`.
    Raises:
        ValueError: no answers, or not as many as references.
    """
    return {"exact_match": share(is_exact, predictions, references)}


def is_same_word(prediction: str, reference: Any) -> bool:
    """Say whether a text equals one of the references but for case and outer white space.

    Source: authors' `internvl_chat/eval/vqa/evaluate_vqa.py`, `evaluate_exact_match_accuracy`.
    """
    return prediction.strip().lower() in (answer.strip().lower() for answer in answers_of(reference))


def accuracy(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"accuracy": share of answers equal to a reference but for case and outer white space}.

    Args:
        references: a str, a list of acceptable str, or a dict with `answer`.
    Raises:
        ValueError: no answers, or not as many as references.
    Source: see `is_same_word`; OCRVQA, AI2D and the open questions of Mantis-Eval.
    """
    return {"accuracy": share(is_same_word, predictions, references)}


def is_gqa(prediction: str, reference: Any) -> bool:
    """Say whether an answer without its trailing dots, in lower case, is exactly the reference.

    The reference is not normalised, and white space counts: a dot before a space stays.
    Source: authors' `internvl_chat/eval/vqa/convert_gqa_for_eval.py`, then equality as in GQA's own `eval.py`.
    """
    return prediction.rstrip(".").lower() in answers_of(reference)


def gqa(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"gqa": share of right answers}.

    Args:
        references: the answer, a str as GQA stores it (lower case), or a dict with `answer`.
    Raises:
        ValueError: no answers, or not as many as references.
    Source: see `is_gqa`.
    """
    return {"gqa": share(is_gqa, predictions, references)}
