"""MMMU and MMMU-Pro: parse multiple-choice and open answers, and compare them, as the benchmarks' own scripts do.

One departure: where the official parsers find no option they draw one at random (seed 42, in file order); here it is
the first option, so that a score neither varies nor depends on the order of rows, and the share of such answers is
returned beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
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
    return _last_named(response, options, (" {} ",))


def parse_choice_pro(response: str, options: dict[str, str]) -> str | None:
    """Do the same as MMMU-Pro: the only option letter behind the last `Answer:`, else as above, `B ` and `B.` allowed.

    Any capital counts there, also that of a word; of several such letters that one wins which stands alone last.
    Source: MMMU-Pro, `mmmu-pro/evaluate.py`, `parse_multi_choice_response`; the authors' copy is the same.
    """
    _, mark, stated = response.rpartition("Answer:")
    named = [letter for letter in options if letter in stated] if mark else []
    return named[0] if len(named) == 1 else _last_named(response, options, ("{} ", "{}."))


def _last_named(response: str, options: dict[str, str], bare_forms: Sequence[str]) -> str | None:
    """Return the option named last: in brackets, else in the first bare form that occurs, else by its text."""
    for mark in ",.!?;:'":
        response = response.strip(mark)
    response = f" {response} "
    for form, place in (("({})", "({})"), *((form, " {} ") for form in bare_forms)):
        named = [letter for letter in options if form.format(letter) in response]
        if named:
            return max(named, key=lambda letter: response.rfind(place.format(letter)))
    if len(response.split()) <= FEW_WORDS or not any(options.values()):
        return None
    lowered = response.lower()
    named = [letter for letter, text in options.items() if text.lower() in lowered]
    return max(named, key=lambda letter: lowered.rfind(options[letter].lower()), default=None)


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


def judge(prediction: str, reference: Any, parse: Callable[..., str | None] = parse_choice) -> tuple[bool, bool]:
    """Return (right, whether the first option had to be taken) for one answer."""
    options = options_of(reference)
    answers = answers_of(reference)
    kind = optional(reference, "question_type") or ("multiple-choice" if options else "open")
    if kind != "multiple-choice":
        return is_open_right(parse_open(prediction), answers), False
    options = options or dict.fromkeys("ABCD", "")
    letter = parse(prediction, options)
    return (letter or next(iter(options))) in answers, letter is None


def is_mmmu(prediction: str, reference: Any) -> bool:
    """Say whether an answer is right; see `judge`."""
    return judge(prediction, reference)[0]


def is_mmmu_pro(prediction: str, reference: Any) -> bool:
    """Say whether an answer is right by MMMU-Pro's parser; see `judge`."""
    return judge(prediction, reference, parse_choice_pro)[0]


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
    return _scores("mmmu", parse_choice, predictions, references)


def mmmu_pro(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"mmmu_pro", "fallback"}: the same by MMMU-Pro's parser.

    Args:
        references: as in `mmmu`.
    Raises:
        ValueError: as in `mmmu`.
    Source: see `parse_choice_pro`.
    """
    return _scores("mmmu_pro", parse_choice_pro, predictions, references)


def _scores(
    name: str, parse: Callable[..., str | None], predictions: Sequence[str], references: Sequence[Any]
) -> dict[str, float]:
    rows = [judge(prediction, reference, parse) for prediction, reference in paired(predictions, references)]
    return {name: average(right for right, _ in rows), "fallback": average(guessed for _, guessed in rows)}
