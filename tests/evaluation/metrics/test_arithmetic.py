"""Arithmetic in Python's and LaTeX's notation; and nothing is executed."""

from __future__ import annotations

import pytest

from internvl_lab.evaluation.metrics.arithmetic import evaluate


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        (" -2.50 ", -2.5),
        ("1e3", 1000),
        ("1,234,567.5", 1234567.5),
        ("1,23", None),
        ("28/2", 14),
        ("2^10", 1024),
        ("2**0.5", pytest.approx(2**0.5)),
        ("\\frac{1}{2}", 0.5),
        ("\\dfrac{\\frac{1}{2}}{4}", 0.125),
        ("2\\sqrt{3}", pytest.approx(2 * 3**0.5)),
        ("\\frac{3\\pi}{2}", pytest.approx(4.71238898)),
        ("3 \\cdot 4 \\times 5", 60),
        ("\\left(1+2\\right)", 3),
        ("x", None),
        ("12 kg", None),
        ("True", None),
        ("inf", None),
        ("1e999", None),
        ("", None),
    ],
)
def test_evaluate(text: str, value: float | None) -> None:
    assert evaluate(text) == value


def test_variables() -> None:
    assert evaluate("2*a + pi", a=1.5) == pytest.approx(6.14159265) and evaluate("2*a") is None


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').getcwd()",
        "9**9**9**9",
        "a.b",
        "[1]",
        "1/0",
        "((((((9**64)**64)**64)**64)**64)**64)",
        "(" * 5000,
        "sqrt(x=1)",
        "log()",
        "'a'",
        "1j",
    ],
)
def test_nothing_but_arithmetic_is_evaluated(text: str) -> None:
    assert evaluate(text) is None
