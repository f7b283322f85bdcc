"""What a rule returns."""

from __future__ import annotations

from typing import NamedTuple

DETAIL_CHARACTERS = 80
"""Longest quotation of a finding."""


class Finding(NamedTuple):
    """Hold a rule's score and the words for it."""

    score: float
    detail: str = ""


NOTHING = Finding(0.0)


def quote(text: str) -> str:
    """Shorten a text for a finding's detail, on one line."""
    line = " ".join(text[: 2 * DETAIL_CHARACTERS].split())
    return line if len(line) <= DETAIL_CHARACTERS else line[: DETAIL_CHARACTERS - 1] + "…"
