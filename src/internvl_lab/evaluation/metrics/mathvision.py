r"""MATH-Vision without a judge: VLMEvalKit's comparison, our rules where it would ask GPT-4 for the answer.

::

    answer ─ \boxed{} ─> option named, or equal to the reference ─> right
           └ else "answer is", last letter (ours, instead of the judge) ─> the same comparison

The report's figures used a judge, so a score from here is marked as judge-free wherever it is shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from internvl_lab.evaluation.metrics.arithmetic import evaluate
from internvl_lab.evaluation.metrics.choices import NO_OPTION, find_letter
from internvl_lab.evaluation.metrics.mathvista import extract_by_rules
from internvl_lab.evaluation.metrics.pairs import answers_of, average, options_of, paired

TOLERANCE = 1e-6
"""Absolute, below which two numbers are equal."""
_BOXED = re.compile(r"\\boxed\{([^}]*)\}")


def is_equal(answer: str, right: str) -> bool:
    """Say whether two answers are the same text but for case and outer white space, or the same number.

    The name `a` has the right number's value, which makes a bare A right: the scorer keeps the number in a variable of
    that name when it evaluates the answer.
    Source: VLMEvalKit, `vlmeval/dataset/utils/mathv.py`, `is_equal`; `arithmetic` stands for latex2sympy and `eval`.
    """
    answer, right = answer.lower().strip(), right.lower().strip()
    if answer == right:
        return True
    wanted = evaluate(right)
    value = None if wanted is None else evaluate(answer, a=wanted)
    return wanted is not None and value is not None and abs(value - wanted) < TOLERANCE


def _read(text: str, reference: Any) -> tuple[bool, bool]:
    """Return (right, whether there is anything to judge) for an answer or an extraction from it."""
    boxed = _BOXED.search(text)
    text = boxed[1] if boxed else text
    options, right = options_of(reference), answers_of(reference)[0]
    if options:
        letter = find_letter(text, options)
        return is_equal(letter, right), letter != NO_OPTION
    equal = is_equal(text, right)
    return equal, equal


def is_mathvision_official(prediction: str, reference: Any) -> bool:
    """Say whether an answer is right as it stands, by VLMEvalKit's rules without a judge."""
    return _read(prediction, reference)[0]


def judge(prediction: str, reference: Any) -> tuple[bool, bool]:
    """Return (right, whether VLMEvalKit would have asked its judge) for one answer."""
    right, settled = _read(prediction, reference)
    if settled:
        return right, False
    form = {"question_type": "multi_choice" if options_of(reference) else "free_form", "answer_type": "text"}
    return _read(extract_by_rules(prediction, form), reference)[0], True


def is_mathvision(prediction: str, reference: Any) -> bool:
    """Say whether an answer is right; see `judge`."""
    return judge(prediction, reference)[0]


def mathvision(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"mathvision", "official_rules", "without_judge"}: shares of answers.

    Args:
        references: dicts with `answer` (a letter where there are options) and `choices` or `options` (a list or the
            text of one, empty for open questions).
    Returns:
        Right answers with our rules in the judge's place; right ones by VLMEvalKit's rules alone, which lose every
        sentence; and the share of answers that it would have handed to its judge.
    Raises:
        ValueError: no answers, not as many as references, or a reference without an answer.
    Source: VLMEvalKit, `vlmeval/dataset/utils/mathv.py`, `post_check`. (MATH-Vision's own script rounds to two
    decimals and strips units; the report's figures are VLMEvalKit's.)
    """
    pairs = paired(predictions, references)
    rows = [judge(prediction, reference) for prediction, reference in pairs]
    return {
        "mathvision": average(right for right, _ in rows),
        "official_rules": average(is_mathvision_official(p, reference) for p, reference in pairs),
        "without_judge": average(asked for _, asked in rows),
    }
