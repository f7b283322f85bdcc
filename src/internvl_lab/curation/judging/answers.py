"""Read a judge's answer strictly: what is not in the agreed form is no score. Nothing is guessed."""

from __future__ import annotations

import re

from internvl_lab.config.curation_judge import MAX_SCORE
from internvl_lab.curation.judging.prompts import DOMAINS
from internvl_lab.text.judging.judge import Reply

_SCORE_LINE = re.compile(
    r"\s*\**\s*score\s*:\s*\**\s*(\d{1,2}(?:\.\d+)?)(?:\s*/\s*10)?\s*\**\s*", re.IGNORECASE | re.ASCII
)
_THOUGHTS = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
"""What a reasoning model says before it answers."""
MAX_DETAIL_CHARS = 160


def parse_score(reply: Reply) -> float | None:
    """Return the score of a final line `Score: N` with N in 0..10, or None.

    `Score: 8/10` and a bold line count too. None for an answer that was cut off, says more after the score, gives two
    different scores, or one off the scale.
    """
    if not reply.is_complete:
        return None
    lines = [line for line in _spoken(reply).splitlines() if line.strip()]
    found = [_SCORE_LINE.fullmatch(line) for line in lines]
    values = {float(match[1]) for match in found if match}
    if not lines or found[-1] is None or len(values) != 1:
        return None
    (value,) = values
    return value if value <= MAX_SCORE else None


def parse_domain(reply: Reply) -> str | None:
    """Return the domain that a one-word answer names, or None."""
    word = _spoken(reply).strip().removesuffix(".").lower()
    return word if reply.is_complete and word in DOMAINS else None


def reason_of(reply: Reply) -> str:
    """Return the words before the score, on one line and cut to `MAX_DETAIL_CHARS`."""
    lines = [line.strip() for line in _spoken(reply).splitlines() if not _SCORE_LINE.fullmatch(line)]
    text = " ".join(line for line in lines if line)
    return text if len(text) <= MAX_DETAIL_CHARS else text[: MAX_DETAIL_CHARS - 1] + "…"


def _spoken(reply: Reply) -> str:
    """Return the answer without the thoughts before it."""
    return _THOUGHTS.sub("", reply.text, count=1)
