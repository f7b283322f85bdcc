"""Read predictions and references in the forms that benchmarks give them; average without an order.

Every metric of this package takes `predictions` (raw answers) and `references` (one element a prediction) and returns
named scores; the score under the metric's own name is the one a report shows. A reference is a str, a list of str or a
dict with the benchmark's own fields; where a list is meant, a single str is taken for a list of one.
"""

from __future__ import annotations

import ast
import math
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

LETTERS = string.ascii_uppercase


def paired(predictions: Sequence[str], references: Sequence[Any]) -> list[tuple[str, Any]]:
    """Pair answers with references.

    Raises:
        ValueError: no answers, not as many as references, or an answer that is no text.
    """
    if not predictions or len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions and {len(references)} references cannot be scored")
    for number, prediction in enumerate(predictions):
        if not isinstance(prediction, str):
            raise ValueError(f"prediction {number} is a {type(prediction).__name__}, not a text")
    return list(zip(predictions, references, strict=True))


def average(values: Iterable[float]) -> float:
    """Average exactly, so that the order of the values cannot move the last bit; 0 for no values."""
    held = list(values)
    return math.fsum(held) / len(held) if held else 0.0


def share(judge: Callable[[str, Any], float], predictions: Sequence[str], references: Sequence[Any]) -> float:
    """Average a judge of one answer over all pairs.

    Raises:
        ValueError: as in `paired`.
    """
    return average(judge(prediction, reference) for prediction, reference in paired(predictions, references))


def field(reference: Any, *names: str) -> Any:
    """Return the first of these fields that a reference has and that is not None.

    Raises:
        ValueError: the reference is no dict, or has none of them.
    """
    if isinstance(reference, Mapping):
        for name in names:
            if reference.get(name) is not None:
                return reference[name]
    raise ValueError(f"reference {reference!r} needs the field {' or '.join(names)}")


def optional(reference: Any, *names: str) -> Any:
    """Return the first of these fields that a reference has, or None."""
    try:
        return field(reference, *names)
    except ValueError:
        return None


def answers_of(reference: Any) -> list[str]:
    """List the acceptable answers of a reference: a value, a list, or a dict with `answers` or `answer`.

    Raises:
        ValueError: there is none.
    """
    if isinstance(reference, Mapping):
        reference = field(reference, "answers", "answer", "label")
    if isinstance(reference, (str, int, float)):
        return [str(reference)]
    answers = [str(answer) for answer in reference]
    if not answers:
        raise ValueError("a reference has no answer")
    return answers


def options_of(reference: Any) -> dict[str, str]:
    """Read the options of a multiple-choice reference as letter -> text; empty where it names none.

    Args:
        reference: a dict with `options` or `choices` (a dict, a list, or the text of one, as MMMU and VLMEvalKit store
            them), or with fields A, B, C, ...
    """
    given = optional(reference, "options", "choices")
    if isinstance(given, str):
        given = ast.literal_eval(given)
    if isinstance(given, Mapping):
        return {str(letter): str(text) for letter, text in given.items()}
    if given is not None:
        return dict(zip(LETTERS, map(str, given), strict=False))
    fields = reference if isinstance(reference, Mapping) else {}
    return {letter: str(fields[letter]) for letter in LETTERS if fields.get(letter) is not None}


def edit_distance(a: str, b: str) -> int:
    """Count the single-character insertions, deletions and substitutions that turn one text into another."""
    previous = list(range(len(b) + 1))
    for row, left in enumerate(a, start=1):
        current = [row]
        for column, right in enumerate(b, start=1):
            substituted = previous[column - 1] + (left != right)
            current.append(min(previous[column] + 1, current[-1] + 1, substituted))
        previous = current
    return previous[-1]
