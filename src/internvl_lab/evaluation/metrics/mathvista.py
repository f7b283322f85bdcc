r"""MathVista without a judge: the benchmark's extraction rules, ours where it would ask GPT-4, its normalisation.

::

    answer ─ quick rules (official) ─> extraction ─ by question and answer type ─> equals the reference, as texts
           └ \boxed{}, "answer is", last letter or number (ours, instead of the judge)

The report's figures used a judge, so a score from here is marked as judge-free wherever it is shown.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any

from internvl_lab.evaluation.metrics.pairs import LETTERS, average, edit_distance, field, optional, paired

_QUOTED = re.compile(r'The answer is "(.*)"\.')
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_STATED = re.compile(r"answer\s*(?:is|:|=)\s*:?\s*(.+)", re.IGNORECASE)
_LETTER = re.compile(r"\(([a-zA-Z])\)")
_CAPITAL = re.compile(r"(?<![A-Za-z])([A-H])(?![A-Za-z])")
_NUMBER = re.compile(r"-?\d[\d,]*\.?\d*|-?\.\d+")
_LIST = re.compile(r"\[[^\[\]]*\]")


def extract_official(response: str, reference: Any) -> str | None:
    """Extract an answer by the benchmark's own rules; None where it would ask the judge.

    Source: MathVista, `evaluation/extract_answer.py`, `extract_answer` with `quick_extract`.
    """
    if response == "" or (_is_choice(reference) and response in _choices(reference)):
        return response
    kind = optional(reference, "answer_type")
    try:
        if kind == "integer":
            return str(int(response))
        if kind == "float":
            return str(float(response))
    except ValueError:
        pass
    quoted = _QUOTED.search(response)
    return quoted[1] if quoted else None


def extract_by_rules(response: str, reference: Any) -> str:
    """Extract an answer where the benchmark would ask its judge: what is stated as the answer, else the end."""
    boxed: list[str] = _BOXED.findall(response)
    stated: list[str] = _STATED.findall(response)
    text = (boxed or stated or [response])[-1].strip().rstrip(".").strip()
    if _is_choice(reference):
        letters: list[str] = _LETTER.findall(text) or _CAPITAL.findall(text)
        return letters[-1].upper() if letters else text
    kind = optional(reference, "answer_type")
    if kind == "text":
        return text.strip("$\"' ")
    pattern = _LIST if kind == "list" else _NUMBER
    found: list[str] = pattern.findall(text) or pattern.findall(response) or [text]
    return found[-1] if kind == "list" else found[-1].replace(",", "")


def normalise_extraction(extraction: str, reference: Any) -> str | None:
    """Bring an extraction into the reference's type: an option's text, a whole number, a rounded number, a text.

    An extraction that is no option becomes the option nearest to it by edit distance, the first of equal ones; a
    number that cannot be read becomes None.
    Source: MathVista, `evaluation/calculate_score.py`, `normalize_extracted_answer`.
    """
    if _is_choice(reference):
        return _nearest_choice(extraction.strip(), _choices(reference))
    kind = optional(reference, "answer_type")
    try:
        if kind == "integer":
            return str(int(float(extraction)))
        if kind == "float":
            return str(round(float(extraction), int(float(field(reference, "precision")))))
    except (ValueError, OverflowError):
        return None
    return extraction


def _nearest_choice(extraction: str, choices: list[str]) -> str:
    bracketed = _LETTER.findall(extraction)
    letter = bracketed[0].upper() if bracketed else extraction
    if len(letter) == 1 and letter in LETTERS[: len(choices)]:
        return choices[LETTERS.index(letter)]
    return min(choices, key=lambda choice: edit_distance(letter, choice))


def judge(response: str, reference: Any) -> tuple[bool, bool]:
    """Return (right, whether the benchmark would have asked its judge) for one answer."""
    extraction = extract_official(response, reference)
    ruled = extraction is None
    if extraction is None:
        extraction = extract_by_rules(response, reference)
    return normalise_extraction(extraction, reference) == str(field(reference, "answer")), ruled


def is_mathvista(prediction: str, reference: Any) -> bool:
    """Say whether an answer is right; see `judge`."""
    return judge(prediction, reference)[0]


def is_mathvista_official(prediction: str, reference: Any) -> bool:
    """Say whether an answer is right by the official rules alone, an empty extraction standing for the judge's."""
    extraction = extract_official(prediction, reference) or ""
    return normalise_extraction(extraction, reference) == str(field(reference, "answer"))


def mathvista(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"mathvista", "official_rules", "without_judge"}: shares of answers.

    Args:
        references: dicts with `answer` (a str; for choices the option's text), `question_type` (`multi_choice` or
            `free_form`), `answer_type` (`text`, `integer`, `float`, `list`), `choices` (a list or the text of one) and
            `precision` (decimals of floats).
    Returns:
        Right answers with our rules in the judge's place; right ones by the official rules alone, which lose every
        sentence; and the share of answers that the benchmark would have handed to its judge.
    Raises:
        ValueError: no answers, not as many as references, or a field is missing.
    Source: MathVista, `evaluation/extract_answer.py` and `evaluation/calculate_score.py`.
    """
    pairs = paired(predictions, references)
    rows = [judge(prediction, reference) for prediction, reference in pairs]
    return {
        "mathvista": average(right for right, _ in rows),
        "official_rules": average(is_mathvista_official(p, reference) for p, reference in pairs),
        "without_judge": average(ruled for _, ruled in rows),
    }


def _is_choice(reference: Any) -> bool:
    return bool(optional(reference, "question_type") == "multi_choice")


def _choices(reference: Any) -> list[str]:
    """List the options' texts, which VLMEvalKit stores as the text of a list."""
    choices = field(reference, "choices", "options")
    return [str(choice) for choice in (ast.literal_eval(choices) if isinstance(choices, str) else choices)]
