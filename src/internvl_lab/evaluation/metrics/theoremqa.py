r"""TheoremQA: find the stated answer, make a number of it, compare within tolerance.

OpenCompass hands expressions to latex2sympy and Python's `eval`; here `arithmetic` reads them, which executes nothing.
What it cannot read is compared as text, as there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from internvl_lab.evaluation.metrics.arithmetic import evaluate
from internvl_lab.evaluation.metrics.pairs import answers_of, field, share

TOLERANCE = 0.04
"""Of a float, relative."""
_TRIGGERS = ("The answer is:", "The answer is", "the answer is")
_LETTERS = ("(a)", "(b)", "(c)", "(d)", "(e)", "(f)")
_NUMERIC = ("float", "integer", "bool")
_UNITS = ("$", "¥", "°C", " C", "°")


def theoremqa(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"theoremqa": share of right answers}.

    Args:
        references: dicts with `answer` and `Answer_type`.
    Raises:
        ValueError: no answers, or not as many as references.
    Source: see `is_theoremqa`.
    """
    return {"theoremqa": share(is_theoremqa, predictions, references)}


def is_theoremqa(prediction: str, reference: Any) -> bool:
    """Say whether an answer is right: equal as text, or as a number (integers rounded, floats within 4 %).

    Source: OpenCompass, `datasets/TheoremQA`: `answer_clean`, `compare_answer_with_groundtruth`.
    """
    answers = answers_of(reference)
    right = answers[0] if len(answers) == 1 else f"[{', '.join(answers)}]"
    answer = stated_answer(prediction)
    if right.lower() in _LETTERS:
        return right.lower() in answer.lower()
    if answer.lower() == right.lower():
        return True
    if str(field(reference, "Answer_type", "answer_type")) not in _NUMERIC:
        return False
    wanted = float(right == "True") if right in ("True", "False") else to_number(right)
    value = to_number(answer)
    if wanted is None or value is None:
        return False
    if right in ("True", "False") or right.lstrip("+-").isdecimal():
        return round(value) == wanted
    return wanted - TOLERANCE * abs(wanted) <= value <= wanted + TOLERANCE * abs(wanted)


def stated_answer(prediction: str) -> str:
    """Return what follows the last `The answer is`, else the last number; yes and no become True and False."""
    text = prediction.strip("\n")
    if any(text.count(trigger) > 1 for trigger in _TRIGGERS):
        text = text.split("\n\n")[0]
    parts = re.split("|".join(_TRIGGERS), text)
    text = _strip_end(parts[-1].strip("\n")).strip(" ")
    lowered = text.lower()
    if "yes" in lowered or "true" in lowered:
        return "True"
    if "no" in lowered or "false" in lowered:
        return "False"
    if any(letter in lowered for letter in _LETTERS):
        return _strip_end(text)
    if len(parts) == 1:
        numbers = re.findall(r"-?\d*\.?\d+", text)
        return numbers[-1] if numbers else ""
    text = clean_units(text.split("=")[-1].strip())
    value = _read(text)
    if value is not None and not text.startswith("("):
        text = str(value)
    elif re.match(r"-?[\d.]+\s(\D+|\S+)$", text):
        text = text.split(" ")[0]
    return _strip_end(text)


def _strip_end(text: str) -> str:
    return text.rstrip(".").rstrip("/")


def clean_units(text: str) -> str:
    """Write pi as 3.14 and percent as /100, and take away signs of currencies and degrees.

    Source: OpenCompass, `datasets/TheoremQA/number_utils.py`, `clean_units`; a pi behind a brace stays.
    """
    text = re.sub(r"(?<![\d}])\\?π", "3.14", text.replace("\\pi", "π"))
    text = re.sub(r"(\d)\\?π", r"\1*3.14", text).replace("%", "/100")
    for unit in _UNITS:
        text = text.replace(unit, "")
    return text


def to_number(text: str) -> float | None:
    """Evaluate a number or a short expression, of a list the first; None where that fails, and for True and False."""
    value = _read(clean_units(text))
    return value[0] if isinstance(value, list) else value


def _read(text: str) -> float | list[float] | None:
    """Evaluate an expression, or several between commas, in brackets or not."""
    value = evaluate(text)
    if value is not None or "," not in text:
        return value
    inner = text.strip()
    if inner[:1] + inner[-1:] in ("[]", "()"):
        inner = inner[1:-1]
    values = [evaluate(part) for part in inner.split(",")]
    known = [part for part in values if part is not None]
    return known if len(known) == len(values) else None
