r"""TheoremQA: find the stated answer, make a number of it, compare within tolerance.

OpenCompass hands expressions to latex2sympy and Python's `eval`; here a small arithmetic of our own reads them
(numbers, + - * / ^, \frac, \sqrt, a few functions), because an answer of a model must never be executed. What it
cannot read is compared as text, as there.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from internvl_lab.evaluation.metrics.pairs import answers_of, field, share

TOLERANCE = 0.04
"""Of a float, relative."""
LONGEST = 200
"""Characters of an expression that is evaluated."""
_TRIGGERS = ("The answer is:", "The answer is", "the answer is")
_LETTERS = ("(a)", "(b)", "(c)", "(d)", "(e)", "(f)")
_NUMERIC = ("float", "integer", "bool")
_BINARY: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: math.pow,
}
_NAMES: dict[str, Any] = {name: getattr(math, name) for name in ("sqrt", "sin", "cos", "log", "exp", "e", "pi")}


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
    wanted, value = to_number(right), to_number(answer)
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
    text = parts[-1].strip("\n").rstrip(".").rstrip("/").strip(" ")
    lowered = text.lower()
    if "yes" in lowered or "true" in lowered:
        return "True"
    if "no" in lowered or "false" in lowered:
        return "False"
    if any(letter in lowered for letter in _LETTERS):
        return text
    if len(parts) == 1:
        numbers = re.findall(r"-?\d*\.?\d+", text)
        return numbers[-1] if numbers else ""
    text = text.split("=")[-1].strip()
    value = to_number(text)
    if value is not None:
        return str(value)
    return text.split(" ")[0] if re.match(r"-?[\d.]+\s(\D+|\S+)$", text) else text


def to_number(text: str) -> float | None:
    """Evaluate a number or a short expression, units cleaned away; None where that fails."""
    if text in ("True", "False"):
        return float(text == "True")
    try:
        value = _evaluate(ast.parse(_as_python(text), mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, KeyError, TypeError, RecursionError, MemoryError):
        return None
    return value if math.isfinite(value) else None


def _as_python(text: str) -> str:
    """Rewrite LaTeX and units as arithmetic; pi is 3.14, as there."""
    if len(text) > LONGEST:
        raise ValueError("too long")
    text = re.sub(r"\\left|\\right|\\[,;! ]|[$¥°]|°?\s?C$", "", text).replace("%", "/100")
    text = re.sub(r"(\d)\s*(?:\\pi|π)", r"\1*3.14", re.sub(r"\*(?:\\pi|π)", "*3.14", text))
    text = re.sub(r"\\pi\b|π", "3.14", text).replace("\\cdot", "*").replace("\\times", "*")
    for _ in range(text.count("frac")):  # from the inside out
        text = re.sub(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r"((\1)/(\2))", text)
    text = re.sub(r"\\(sqrt|sin|cos|log|exp)", r"\1", text)
    return text.replace("{", "(").replace("}", ")").replace("^", "**").strip()


def _evaluate(node: ast.expr) -> float:
    """Evaluate arithmetic and the functions of `_NAMES`; anything else is refused."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _evaluate(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp):
        return _BINARY[type(node.op)](_evaluate(node.left), _evaluate(node.right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return float(_NAMES[node.func.id](*map(_evaluate, node.args)))
    if isinstance(node, ast.Name):
        return float(_NAMES[node.id])
    raise ValueError("no arithmetic")
