"""Multiple choice whose set has a scorer of its own, wider or narrower than the readings of `choices`.

Each metric names its set's own score first, quirks included, and repeats `multiple_choice` (VLMEvalKit's common reading
without a judge) beside it, so that both can be seen. Where a scorer would ask a judge, that reading stands in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from internvl_lab.evaluation.metrics.choices import (
    find_letter,
    find_letter_as_run,
    is_right_choice,
    read_choice,
)
from internvl_lab.evaluation.metrics.exact import is_same_word
from internvl_lab.evaluation.metrics.pairs import answers_of, average, field, options_of, paired, share

_PREFIXES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option isThe correct option is",  # two, which a missing comma joins in all the scorers
    "Best answer:Best option:",
)
_VIDEO_PREFIXES = (*_PREFIXES, "Answer:", "Option:")
_TEXT_AT = 4
"""Where CRPE's scorer lets the text of a reference `A. text` begin: behind its first letter."""


def _scores(
    name: str, judge: Callable[[str, Any], bool], predictions: Sequence[str], references: Sequence[Any]
) -> dict[str, float]:
    """Return {name: share of right answers, "multiple_choice": the same by VLMEvalKit's common reading}."""
    return {
        name: share(judge, predictions, references),
        "multiple_choice": share(is_right_choice, predictions, references),
    }


def first_capital(answer: str, letters: str, prefixes: Sequence[str]) -> str:
    """Return the first of some capitals in an answer without its opening phrases, empty where there is none.

    The capital of a word counts as well: `Because` is a B.
    """
    text = _without(answer, prefixes)
    return next((character for character in text if character in letters), "")


def _without(answer: str, prefixes: Sequence[str]) -> str:
    text = answer.strip()
    for prefix in prefixes:
        text = text.replace(prefix, "")
    return text


def _is_video(letters: str) -> Callable[[str, Any], bool]:
    def judge(prediction: str, reference: Any) -> bool:
        """Say whether the first of these capitals, or without one the option that is named, is right."""
        options, right = read_choice(reference)
        return (first_capital(prediction, letters, _VIDEO_PREFIXES) or find_letter(prediction, options)) == right

    return judge


is_videomme = _is_video("ABCD")
is_longvideobench = _is_video("ABCDE")


def videomme(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"videomme", "multiple_choice"}: shares of answers whose first capital of A to D is right.

    Args:
        references: as in `choices.multiple_choice`.
    Raises:
        ValueError: no answers, not as many as references, or a reference without an answer.
    Source: VLMEvalKit, `vlmeval/dataset/utils/videomme.py`, `extract_characters_regex`; its common reading where there
    is no such capital.
    """
    return _scores("videomme", is_videomme, predictions, references)


def longvideobench(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"longvideobench", "multiple_choice"}: as `videomme`, with capitals A to E.

    Args:
        references: as in `choices.multiple_choice`.
    Raises:
        ValueError: no answers, not as many as references, or a reference without an answer.
    Source: VLMEvalKit, `vlmeval/dataset/utils/longvideobench.py`.
    """
    return _scores("longvideobench", is_longvideobench, predictions, references)


def is_mme_realworld(prediction: str, reference: Any) -> bool:
    """Say whether the first capital of A to E is right; without one, whether `(a)`, `(b)`, ... contains the answer.

    `Answer: B` is an A, by its first letter, and so is an empty answer.
    Source: VLMEvalKit, `vlmeval/dataset/utils/multiple_choice.py`, `extract_characters_regex`; MME-RealWorld's own.
    """
    letters = "ABCDE"
    text = _without(prediction, _PREFIXES).lower()
    named = first_capital(prediction, letters, _PREFIXES)
    named = named or next((letter for letter in letters if text in f"({letter.lower()})"), "")
    return named == read_choice(reference)[1]


def mme_realworld(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"mme_realworld", "multiple_choice"}: shares of right answers.

    Args:
        references: as in `choices.multiple_choice`.
    Raises:
        ValueError: no answers, not as many as references, or a reference without an answer.
    Source: see `is_mme_realworld`.
    """
    return _scores("mme_realworld", is_mme_realworld, predictions, references)


def is_mvbench(prediction: str, reference: Any) -> bool:
    """Say whether the first word of an answer is a part of `(b)`, the right option, or contains it.

    Case and dots do not count; an empty answer is right, a bracket as well, as in the authors' code.
    Source: authors' `internvl_chat/eval/mvbench/evaluate_mvbench.py`, `check_ans`.
    """
    option = f"({read_choice(reference)[1].lower()})"
    word = prediction.replace("Answer: ", "").lower().split(" ")[0]
    return word.replace(".", "") in option or option in word


def mvbench(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"mvbench", "multiple_choice"}: shares of right answers, over all tasks' questions.

    Args:
        references: as in `choices.multiple_choice`.
    Raises:
        ValueError: no answers, not as many as references, or a reference without an answer.
    Source: see `is_mvbench`.
    """
    return _scores("mvbench", is_mvbench, predictions, references)


def is_crpe(prediction: str, reference: Any) -> bool:
    """Say whether an answer begins with the right letter or, where it begins with none of A to D, contains the text.

    A reference that is a letter alone has no text, and any such answer contains that.
    Source: VLMEvalKit, `vlmeval/dataset/utils/crpe.py`, `is_correct`; an empty answer, on which it fails, is wrong.
    """
    right = answers_of(reference)[0]
    if len(prediction) <= 1 or prediction[0] in "ABCD":
        return _starts_alike(prediction, right)
    return right[_TEXT_AT:].lower() in prediction.lower()


def _starts_alike(prediction: str, right: str) -> bool:
    return prediction != "" and prediction[0] == right[:1]


def crpe(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"crpe", "letter"}: shares of right answers, and of those that begin with the right letter.

    Args:
        references: the right option, `B` or `B. on the table`, or a dict with it as `answer`.
    Raises:
        ValueError: no answers, not as many as references, or a reference without an answer.
    Source: see `is_crpe`.
    """
    return {
        "crpe": share(is_crpe, predictions, references),
        "letter": share(lambda p, reference: _starts_alike(p, answers_of(reference)[0]), predictions, references),
    }


def is_choice_or_word(prediction: str, reference: Any) -> bool:
    """Say whether an answer is the right letter, bare or in brackets, or the option's text; else equal but for case.

    Nothing else may stand in the answer, not even a dot.
    Source: authors' `internvl_chat/eval/mantis_eval/evaluate_mantis.py`.
    """
    if not options_of(reference):
        return prediction.lower() in (answer.lower() for answer in answers_of(reference))
    options, right = read_choice(reference)
    bracketed = re.fullmatch(r"\((.)\)", prediction, re.DOTALL)
    return (bracketed[1] if bracketed else prediction) in (right, options.get(right))


def choice_or_word(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"choice_or_word", "lenient"}: shares of right answers over a mixture of choices and short answers.

    Args:
        references: as in `choices.multiple_choice`; a dict without options is a short answer.
    Returns:
        The authors' overall accuracy, and what VLMEvalKit's reading and `accuracy` make of the same answers.
    Raises:
        ValueError: no answers, or not as many as references.
    Source: see `is_choice_or_word`.
    """

    def lenient(prediction: str, reference: Any) -> bool:
        """Say whether an answer names the right option, or without options equals the reference but for case."""
        return (is_right_choice if options_of(reference) else is_same_word)(prediction, reference)

    return {
        "choice_or_word": share(is_choice_or_word, predictions, references),
        "lenient": share(lenient, predictions, references),
    }


def _by_task(
    name: str, judge: Callable[[str, Any], bool], predictions: Sequence[str], references: Sequence[Any]
) -> dict[str, float]:
    """Return {name: accuracy averaged over tasks, unweighted, "overall": over answers}."""
    groups: dict[str, list[bool]] = {}
    for prediction, reference in paired(predictions, references):
        groups.setdefault(str(field(reference, "task", "task_type")), []).append(judge(prediction, reference))
    return {
        name: average(average(rights) for rights in groups.values()),
        "overall": average(right for rights in groups.values() for right in rights),
    }


def is_mmiu(prediction: str, reference: Any) -> bool:
    """Say whether an answer names the right option; see `choices.find_letter_as_run`."""
    options, right = read_choice(reference)
    return find_letter_as_run(prediction, options) == right


def mmiu(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"mmiu", "overall"}: accuracy averaged over tasks, unweighted, and over answers.

    Args:
        references: as in `choices.multiple_choice`, with `task`.
    Raises:
        ValueError: no answers, not as many as references, or no task.
    Source: authors' `internvl_chat/eval/mmiu/evaluate_mmiu.py`.
    """
    return _by_task("mmiu", is_mmiu, predictions, references)


def is_mlvu(prediction: str, reference: Any) -> bool:
    """Say whether the character before the first `)`, or the answer without one, is the right letter.

    Source: VLMEvalKit, `vlmeval/dataset/utils/mlvu.py`, `check_ans_with_model`; the common reading for its judge.
    """
    options, right = read_choice(reference)
    head, bracket, _ = prediction.partition(")")
    return (head[-1:] if bracket else prediction) == right or find_letter(prediction, options) == right


def mlvu(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"mlvu", "overall"}: M-Avg, the unweighted average over tasks, and accuracy over answers.

    Args:
        references: as in `choices.multiple_choice`, with `task` or `task_type`.
    Raises:
        ValueError: no answers, not as many as references, or no task.
    Source: see `is_mlvu`; M-Avg as MLVU defines it (VLMEvalKit's row of that name is over answers, without `order`).
    """
    return _by_task("mlvu", is_mlvu, predictions, references)
