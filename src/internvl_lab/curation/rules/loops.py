"""Rules about loops of characters and words; each takes the text of one answer.

All are quiet about what repeats for good reason: rules and leaders of forms, zeros of tables, refrains.
"""

from __future__ import annotations

import re
import zlib

from internvl_lab.curation.rules.finding import NOTHING, Finding, quote
from internvl_lab.text.repetition import find_repeats, repeat_share, repeated_ngram_share

MIN_COMPRESSED_BYTES = 400
"""Shorter texts are not compressed: their ratio says little."""
DRAWING_DISCOUNT = 20
"""Runs of what forms, tables and headings draw lines with count for this much less: 200 dots lead to a page number as
often as 20."""
SHOUTING = frozenset("!?\uff01\uff1f\u3002")
"""Signs that draw nothing; all others that are no letter or digit may."""
MIN_RUN = 8
"""Shorter runs of one character are not looked at."""

_RUN = re.compile(rf"(\S)\1{{{MIN_RUN - 1},}}")
_ZEROS = re.compile(r"0(?:[\s,.;]{0,2}0){7,}")


def repeated_ngrams(text: str) -> Finding:
    """Return the share of distinct 10-grams of words that occur more than once. Unit: share, in [0, 0.5].

    Source: authors' `train/dataset.py`, `check_conversations_repetition` (limit 0.4), commented out there.
    """
    share = repeated_ngram_share(text)
    return Finding(share, f"{share:.0%} of the 10-grams occur again") if share else NOTHING


def longest_repeat(text: str) -> Finding:
    """Return the share of the letters inside the longest substring that occurs again. Unit: share, in [0, 1).

    Sees what n-grams of words miss: Chinese, digits, loops without spaces. Source: ours, limit as in the authors' rule.
    """
    repeat, _ = find_repeats(text)
    share = repeat_share(text, repeat)
    if not share:
        return NOTHING
    return Finding(share, f"{repeat.length} characters occur again: {quote(text[repeat.start :])}")


def longest_loop(text: str) -> Finding:
    """Return how many letters and digits one period copies without a break. Unit: characters.

    Sees a loop at the end of a long sound answer, where every share is small. Source: ours; spec section 9 (loops).
    """
    _, loop = find_repeats(text)
    if not loop.letters:
        return NOTHING
    unit = text[loop.start : loop.start + loop.period]
    return Finding(loop.letters, f"{1 + loop.length // loop.period} times {quote(unit)}")


def character_run(text: str) -> Finding:
    """Return the longest run of one character; what draws lines counts a twentieth. Unit: characters.

    Source: spec section 9, "very long runs"; the limit is ours.
    """
    best = NOTHING
    for match in _RUN.finditer(text):
        character, length = match[1], len(match[0])
        drawn = not character.isalnum() and character not in SHOUTING
        score = length / DRAWING_DISCOUNT if drawn else float(length)
        if score > best.score and character != "0":
            best = Finding(score, f"{length} times {character!r} in a row")
    return best


def zero_run(text: str) -> Finding:
    """Return the most zeros in a row, spaces, commas and points between them allowed. Unit: zeros.

    Cells of tables and rows of matrices end a run. Source: spec section 9 (runs of '0' in LLaVA-Video); limit ours.
    """
    if text.count("0") < MIN_RUN:
        return NOTHING
    longest = max((match[0].count("0") for match in _ZEROS.finditer(text)), default=0)
    return Finding(longest, f"{longest} zeros in a row") if longest else NOTHING


def compression(text: str) -> Finding:
    """Return how many times smaller zlib makes the text; 0 for short ones. Unit: ratio.

    A net under the other rules: loops with small changes compress as well as exact ones. Source: Gopher-style filters
    as in BLOOM's ROOTS (arXiv 2303.03915); the limit is ours, above tables (5.4 at most on the labelled set).
    """
    data = text.encode("utf-8", "surrogatepass")
    if len(data) < MIN_COMPRESSED_BYTES:
        return NOTHING
    ratio = len(data) / len(zlib.compress(data))
    return Finding(ratio, f"zlib makes it {ratio:.1f} times smaller")
