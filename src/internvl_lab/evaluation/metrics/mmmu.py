"""MMMU: parse multiple-choice and open answers, and compare them, as the benchmark's own scripts do.

One departure: where the official parser finds no option it draws one at random (seed 42, in file order); here it takes
the first option, so that a score neither varies nor depends on the order of rows, and the share of such answers is
returned beside it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from internvl_lab.evaluation.metrics.pairs import answers_of, average, optional, options_of, paired

FEW_WORDS = 5
"""Answers longer than this are searched for the options' texts."""
_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_MARKS = (":", ",", ".", "!", "?", ";", "'")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
"""With thousands' commas, in scientific notation, plain."""

Parsed = str | float


def parse_choice(response: str, options: dict[str, str]) -> str | None:
    """Return the letter that a response gives; of several the one named last; None where it gives none.

    `(B)` wins over a bare ` B `, and only a longer answer without either is searched for the options' texts.
    Source: MMMU, `eval/eval_utils.py`, `parse_multi_choice_response`.
    """
    for mark in ",.!?;:'":
        response = response.strip(mark)
    response = f" {response} "
    bracketed = [letter for letter in options if f"({letter})" in response]
    bare = [letter for letter in options if f" {letter} " in response]
    lowered = response.lower()
    places: dict[str, int] = {}
    if bracketed:
        places = {letter: response.rfind(f"({letter})") for letter in bracketed}
    elif bare:
        places = {letter: response.rfind(f" {letter} ") for letter in bare}
    elif len(response.split()) > FEW_WORDS:
        places = {letter: lowered.rfind(text.lower()) for letter, text in options.items() if text.lower() in lowered}
    return max(places, key=lambda letter: places[letter]) if places else None


def parse_open(response: str) -> list[Parsed]:
    """Return the candidate answers of a response: its telling phrases in lower case, and all numbers in them.

    Source: MMMU, `eval/eval_utils.py`, `parse_open_response`.
    """
    phrases = _telling_phrases(response.strip().strip(".").lower())
    numbers = [number for phrase in phrases for pattern in _NUMBERS for number in pattern.findall(phrase)]
    candidates = [form for text in [*phrases, *numbers] for form in normalise(text)]
    return list(dict.fromkeys(candidates))


def _telling_phrases(response: str) -> list[str]:
    """Return what follows the last indicator of each line, the shortest such tail; else the whole response."""
    # The official pattern also splits at a full stop before a capital, which a lower-cased text never has.
    lines = response.split("\n")
    phrases = []
    for number, line in enumerate(lines):
        indicators = (*_INDICATORS, "=") if number == len(lines) - 1 else _INDICATORS
        tails = [line.split(indicator)[-1].strip() for indicator in indicators if indicator in line]
        # an empty tail is replaced by the next, as a falsy value is in the official code
        shortest = ""
        for tail in tails:
            if not shortest or len(tail) < len(shortest):
                shortest = tail
        if shortest and shortest not in _MARKS:
            phrases.append(shortest)
    return phrases or [response]


def normalise(text: str) -> list[Parsed]:
    """Turn a text into a number of two decimals, or lower case; one character gets a space before or behind it.

    Source: MMMU, `eval/eval_utils.py`, `normalize_str`.
    """
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        lowered = text.lower()
        return [f" {lowered}", f"{lowered} "] if len(lowered) == 1 else [lowered]


def is_open_right(candidates: Sequence[Parsed], answers: Sequence[str]) -> bool:
    """Say whether a candidate contains an answer's text or equals its number.

    Source: MMMU, `eval/eval_utils.py`, `eval_open`.
    """
    wanted = [form for answer in answers for form in normalise(answer)]
    texts = [form for form in wanted if isinstance(form, str)]
    return any(
        any(text in candidate for text in texts) if isinstance(candidate, str) else candidate in wanted
        for candidate in candidates
    )


def judge(prediction: str, reference: Any) -> tuple[bool, bool]:
    """Return (right, whether the first option had to be taken) for one answer."""
    options = options_of(reference)
    answers = answers_of(reference)
    kind = optional(reference, "question_type") or ("multiple-choice" if options else "open")
    if kind != "multiple-choice":
        return is_open_right(parse_open(prediction), answers), False
    options = options or dict.fromkeys("ABCD", "")
    letter = parse_choice(prediction, options)
    return (letter or next(iter(options))) in answers, letter is None


def is_mmmu(prediction: str, reference: Any) -> bool:
    """Say whether an answer is right; see `judge`."""
    return judge(prediction, reference)[0]


def mmmu(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"mmmu", "fallback"}: shares of right answers, and of choices that no option could be read from.

    Args:
        references: dicts with `question_type` (`multiple-choice` or `open`; default: choice where there are options),
            `answer` (a letter; for open questions a str or a list of acceptable str) and, for choices, `options` (a
            list or the text of one). A plain str or list is an open question.
    Raises:
        ValueError: no answers, not as many as references, or a reference without an answer.
    Source: MMMU, `eval/eval_utils.py`; accuracy over all questions.
    """
    rows = [judge(prediction, reference) for prediction, reference in paired(predictions, references)]
    return {"mmmu": average(right for right, _ in rows), "fallback": average(guessed for _, guessed in rows)}
