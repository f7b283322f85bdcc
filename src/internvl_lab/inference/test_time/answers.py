r"""Read the final answer out of a worked one, and make answers comparable.

    "... so 2.\nAnswer: \boxed{B}"  ──extract──>  ("B", "boxed")  ──normalise──>  "b"

Where the asked-for form is missing, weaker forms are tried in order, and the way that led to the answer is kept: a
report can say how often a model did as it was told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from internvl_lab.text.chain_of_thought import options_of

_BRACE = re.compile(r"(\\boxed\s*\{)|\\.|([{}])", re.DOTALL)
"""A box's beginning, or a brace; what stands behind a backslash is neither."""
_ANSWER_LINE = re.compile(
    r"^[\s*#>]*(?:final\s+)?answer(?:\s+is)?\s*[:\uff1a]\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE
)
_ANSWER_IS = re.compile(r"\banswer\s+is:?\s+(.+?)(?:\.(?=\s|$)|$)", re.IGNORECASE | re.MULTILINE)
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|mathrm|mathbf|boldsymbol)\s*\{([^{}]*)\}")
_LETTER = re.compile(r"^\(?([A-Z])(?:[).:,]|\s*$)")
_BRACKETED = re.compile(r"\(([A-Z])\)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_DECIMAL = re.compile(r"[+-]?\d+\.\d*")


@dataclass(frozen=True)
class Extracted:
    """Hold a final answer and how it was found."""

    text: str
    """Empty where the text holds no answer."""
    how: str
    """`boxed`, `line` (`Answer: ...`), `phrase` (`the answer is ...`), `letter` or `text` (the last line)."""


def extract(text: str, question: str, worked: bool = True) -> Extracted:
    """Read the final answer of a text.

    Args:
        text: what the model said.
        question: what it was asked; with options, a letter counts, and so does the text of an option.
        worked: whether it was asked for steps; a direct answer is its own final answer.
    Returns:
        The answer, without the marks around it; for a question with options their letter where one is recognised.
    """
    options = options_of(question)
    if not worked:
        return Extracted(_as_option(text.strip(), options), "text")
    for how, found in (
        ("boxed", last_boxed(text)),
        ("line", _last(_ANSWER_LINE, text)),
        ("phrase", _last(_ANSWER_IS, text)),
    ):
        if found is not None and (answer := _as_option(_clean(found), options)):
            return Extracted(answer, how)
    if options and (bracketed := [letter for letter in _BRACKETED.findall(text) if letter in options]):
        return Extracted(bracketed[-1], "letter")
    lines = [line for line in text.splitlines() if line.strip()]
    return Extracted(_as_option(_clean(lines[-1]), options) if lines else "", "text")


def last_boxed(text: str) -> str | None:
    r"""Return what the last complete `\boxed{...}` holds, braces inside it included; None without one."""
    opened: list[int] = []  # where a box begins to hold, -1 for any other brace; one pass, for answers that loop
    last = (-1, -1)
    for match in _BRACE.finditer(text):
        if match[1]:
            opened.append(match.end())
        elif match[2] == "{":
            opened.append(-1)
        elif match[2] and opened:
            last = max(last, (opened.pop(), match.start()))
    start, end = last
    return text[start:end] if start >= 0 else None


def normalise(answer: str) -> str:
    r"""Make answers that mean the same the same text, for votes.

    Case, white space, `$`, `\text{}`, a final stop, commas between thousands and zeros behind a decimal point do not
    count: `$1,250.0$.` and `1250` are one answer.
    """
    text = _clean(_clean(answer).rstrip(".")).casefold()
    number = _THOUSANDS.sub("", text)
    if _DECIMAL.fullmatch(number):
        number = number.rstrip("0").rstrip(".")
    return number if re.fullmatch(r"[+-]?\d+(?:\.\d+)?", number) else " ".join(text.split())


def _clean(answer: str) -> str:
    """Take away what only surrounds an answer: mathematical marks, emphasis, white space."""
    text = _TEXT_COMMAND.sub(r"\1", answer)
    boxed = last_boxed(text)
    text = text if boxed is None else boxed
    return text.strip().strip("$*`").strip()


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    """Return the last thing that a pattern finds."""
    found = pattern.findall(text)
    return found[-1] if found else None


def _as_option(answer: str, options: dict[str, str]) -> str:
    """Return the letter that an answer names or whose option it repeats; else the answer itself."""
    if not options:
        return answer
    match = _LETTER.match(answer)
    if match and match[1] in options:
        return match[1]
    same = [letter for letter, text in options.items() if normalise(text) == normalise(answer)]
    return same[0] if len(same) == 1 else answer
