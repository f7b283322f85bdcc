r"""Ask for the steps before the answer, and for a last line that a program can read.

Here, below `data` and `inference`, because miniworld trains on the very words that test-time scaling asks with.

    question [options] [direct suffix]  ──cot_prompt──>  question [options] + what to do
    "... Answer: \boxed{B}"             <── what a model then ends with; `inference.test_time.answers` reads it
"""

from __future__ import annotations

import re

LETTER_SUFFIX = "Answer with the option's letter from the given choices directly."
"""Asks a multiple-choice question directly. Source: spec section 11.1."""
DIRECT_SUFFIXES = (
    LETTER_SUFFIX,
    "请直接回答选项字母。",
    "Answer the question using a single word or phrase.",
)
"""What asks for the bare answer. A chain of thought contradicts it, so `cot_prompt` takes it away."""

_OPTION = re.compile(r"^[ \t]*(?:\(([A-Z])\)|([A-Z])[.:)])[ \t]*(\S.*)$", re.MULTILINE)
_MIN_OPTIONS = 2

_TASK = (
    "Answer the question above{}. Think step by step, without repeating yourself. If unsure, make an educated guess."
)
_LAST_LINE = r" The last line must be: Answer: \boxed{{{}}}"


def options_of(question: str) -> dict[str, str]:
    """Read the options of a multiple-choice question: letter to text; empty for an open question.

    Options stand one a line as `A. text`, `A: text`, `A) text` or `(A) text`, from A on without a gap.
    """
    found: dict[str, str] = {}
    for bracketed, plain, text in _OPTION.findall(question):
        letter = bracketed or plain
        if letter == chr(ord("A") + len(found)):
            found[letter] = text.strip()
    return found if len(found) >= _MIN_OPTIONS else {}


def cot_prompt(question: str) -> str:
    r"""Turn a question into one that asks for its steps and for a last line with the boxed answer.

    Elements: answer the question before; last line `Answer: \boxed{...}`; an educated guess if unsure; no endless
    repetition; step by step. The words are our own. Source of the elements: spec section 10.
    """
    bare = question
    for suffix in DIRECT_SUFFIXES:
        bare = bare.replace(suffix, "")
    choice = bool(options_of(question))
    task = _TASK.format(" with one of its options" if choice else "")
    return f"{bare.rstrip()}\n{task}{_LAST_LINE.format('LETTER' if choice else 'FINAL_ANSWER')}"


def boxed(answer: str) -> str:
    """Write the last line of a worked answer."""
    return rf"Answer: \boxed{{{answer}}}"
