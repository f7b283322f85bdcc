r"""Evaluate numbers and short expressions in Python's or LaTeX's notation, without executing anything.

Scorers of mathematics hand a model's answer to latex2sympy and Python's `eval`; here a small arithmetic of our own
reads it (numbers, + - * / ^, \frac, \sqrt, a few functions), because an answer of a model must never be executed.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

LONGEST = 200
"""Characters of an expression that is evaluated."""
LARGEST_POWER = 1024
"""Bits of a whole power of a whole number; larger ones are powers of floats, which overflow and fill no memory."""
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_IMPLIED = re.compile(r"(?<=[\d)}])\s*\\(?=sqrt|pi)")
"""Where a factor follows without a sign, as in 2\\sqrt{3}."""


def evaluate(text: str, **variables: float) -> float | None:
    """Evaluate a number or a short expression; None where it is none, or not finite.

    Args:
        text: at most `LONGEST` characters.
        variables: values of names beside the constants and functions.
    """
    try:
        value = _evaluate(ast.parse(_as_python(text), mode="eval").body, {**_NAMES, **variables})
        return value if math.isfinite(value) else None
    except (SyntaxError, ValueError, ArithmeticError, KeyError, TypeError, RecursionError, MemoryError):
        return None


def _as_python(text: str) -> str:
    """Rewrite LaTeX as Python's arithmetic."""
    if len(text) > LONGEST:
        raise ValueError("too long")
    text = _IMPLIED.sub("*", _THOUSANDS.sub("", text))
    text = re.sub(r"\\left|\\right|\\[,;! ]", "", text).replace("\\cdot", "*").replace("\\times", "*")
    for _ in range(text.count("frac")):  # from the inside out
        text = re.sub(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r"((\1)/(\2))", text)
    text = re.sub(r"\\(sqrt|sin|cos|log|exp|pi)", r"\1", text)
    return text.replace("{", "(").replace("}", ")").replace("^", "**").strip()


def _power(base: float, exponent: float) -> float:
    if isinstance(base, int) and isinstance(exponent, int) and 0 <= exponent * base.bit_length() <= LARGEST_POWER:
        return float(base**exponent)
    return math.pow(base, exponent)


_BINARY: dict[type, Callable[[Any, Any], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: _power,
}
_NAMES: dict[str, Any] = {name: getattr(math, name) for name in ("sqrt", "sin", "cos", "log", "exp", "e", "pi")}


def _evaluate(node: ast.expr, names: Mapping[str, Any]) -> float:
    """Evaluate arithmetic and these functions and constants; anything else is refused."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]  # the line above says so
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _evaluate(node.operand, names)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp):
        return _BINARY[type(node.op)](_evaluate(node.left, names), _evaluate(node.right, names))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return float(names[node.func.id](*(_evaluate(argument, names) for argument in node.args)))
    if isinstance(node, ast.Name):
        return float(names[node.id])
    raise ValueError("no arithmetic")
