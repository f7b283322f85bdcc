"""Multiple choice: which letter does an answer mean, and is it the right one.

Two readings stand side by side. VLMEvalKit's, with which the report scored most of its sets: exactly one option letter
among the words, else exactly one option text inside the answer. The authors' own, for the sets they scored themselves:
the first character, else the first option whose text is in the answer. Neither guesses: an answer that names no option
is wrong (VLMEvalKit without a judge calls it Z), and its share is reported. Sets whose scorers read in yet another way
stand in `own_choices`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from internvl_lab.evaluation.metrics.pairs import (
    answers_of,
    average,
    field,
    optional,
    options_of,
    paired,
)

NO_OPTION = "Z"
DEFAULT_LETTERS = "ABCDEFGH"
"""Letters that count where a reference names no options; more would take the word I for one."""
CIRCULAR_STEP = 1_000_000
"""Indices of the rotations of one MMBench question differ by multiples of this."""
_SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_NO_ANSWER = "Failed to obtain answer via API"
"""VLMEvalKit's own message; letters beside it do not count, texts do."""


def find_letter(prediction: str, options: dict[str, str]) -> str:
    """Return the option that an answer names, `Z` where it names none or several.

    Args:
        prediction: raw answer.
        options: letter -> text; where all texts are empty only letters count, a single empty one is in every answer.
    Source: VLMEvalKit, `vlmeval/utils/matching_util.py`, `can_infer` as of the report's date, without a judge.
    """
    failed = _NO_ANSWER in prediction
    if not failed and any(refusal in prediction for refusal in _REFUSALS):
        return NO_OPTION
    words = [] if failed else prediction.translate(_SEPARATORS).split()
    named = [letter for letter in options if letter in words]
    if len(named) == 1:
        return named[0]
    if not named and NO_OPTION in words:
        return NO_OPTION
    lowered = prediction.lower()
    quoted = [letter for letter, text in _texts(options) if text.lower() in lowered]
    return quoted[0] if len(quoted) == 1 else NO_OPTION


def _texts(options: dict[str, str]) -> Iterable[tuple[str, str]]:
    """Return (letter, text) of options whose texts are known."""
    return options.items() if any(options.values()) else ()


def find_letter_as_run(prediction: str, options: dict[str, str]) -> str:
    """Return the option that an answer names by its first character, else by the first option text it contains.

    Returns:
        The answer itself where nothing fits, which no reference equals.
    Source: authors' `internvl_chat/eval/mmbench/evaluate_mmbench.py`, `post_process`; MMIU's and MMMU's are the same.
    """
    text = prediction.strip()
    if len(text) <= 1 or text[0] in options:
        return text[:1]
    return next((letter for letter, words in _texts(options) if words in text), text)


def correct_letter(reference: Any, options: dict[str, str]) -> str:
    """Return the letter of the right option; a reference may give its letter, `(B)`, or its text."""
    answer = answers_of(reference)[0].strip()
    if answer in options:
        return answer
    by_text = [letter for letter, text in options.items() if text and text.strip() == answer]
    return by_text[0] if by_text else answer.strip("().").upper()


def read_choice(reference: Any) -> tuple[dict[str, str], str]:
    """Return (letter -> text, the right letter) of a reference."""
    options = options_of(reference) or dict.fromkeys(DEFAULT_LETTERS, "")
    return options, correct_letter(reference, options)


def is_right_choice(prediction: str, reference: Any) -> bool:
    """Say whether an answer names the right option; see `find_letter`."""
    options, right = read_choice(reference)
    return find_letter(prediction, options) == right


def multiple_choice(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"multiple_choice", "as_run", "first_option", "unparsed"}: shares of answers.

    Args:
        references: the right letter as a str (options unknown), or a dict with `answer` (letter or option text) and
            the options: `options` or `choices` (a list, or letter -> text), or fields A, B, C, ...
    Returns:
        VLMEvalKit's reading, the authors' own, VLMEvalKit's with the first option where nothing could be read
        (more lenient), and the share of answers that it could not read.
    Raises:
        ValueError: no answers, not as many as references, or a reference without an answer.
    Source: see `find_letter` and `find_letter_as_run`.
    """
    rows = [(prediction, *read_choice(reference)) for prediction, reference in paired(predictions, references)]
    letters = [find_letter(prediction, options) for prediction, options, _ in rows]
    first = [
        next(iter(o)) if x == NO_OPTION and NO_OPTION not in o else x
        for x, (_, o, _) in zip(letters, rows, strict=True)
    ]
    return {
        "multiple_choice": average(x == right for x, (_, _, right) in zip(letters, rows, strict=True)),
        "as_run": average(find_letter_as_run(p, options) == right for p, options, right in rows),
        "first_option": average(x == right for x, (_, _, right) in zip(first, rows, strict=True)),
        "unparsed": average(x == NO_OPTION for x in letters),
    }


def mmbench_circular(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"mmbench_circular", "vanilla"}: share of questions right in all their rotations, and of all answers.

    Args:
        references: as in `multiple_choice`, with `index`; rotations of a question share it modulo 1,000,000 (`g_index`
            overrides that). A question counts only if its first rotation, whose index is the shared one, was asked.
    Raises:
        ValueError: no answers, not as many as references, no index, or no first rotation.
    Source: VLMEvalKit, `vlmeval/dataset/utils/multiple_choice.py`, `mcq_circular_eval`.
    """
    groups: dict[int, list[bool]] = {}
    asked = set()
    for prediction, reference in paired(predictions, references):
        index, group = int(field(reference, "index")), optional(reference, "g_index")
        group = index % CIRCULAR_STEP if group is None else int(group)
        groups.setdefault(group, []).append(is_right_choice(prediction, reference))
        if index == group:
            asked.add(group)
    if not asked:
        raise ValueError("no question has its first rotation, whose index is the one that all rotations share")
    return {
        "mmbench_circular": average(all(groups[group]) for group in asked),
        "vanilla": average(right for rights in groups.values() for right in rights),
    }
