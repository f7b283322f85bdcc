"""Rules about lines, sentences and clauses; each takes the text of one answer."""

from __future__ import annotations

import re
from collections.abc import Iterable

from internvl_lab.curation.rules.finding import NOTHING, Finding, quote

MIN_LINES = 8
"""Answers with fewer lines repeat none."""
MIN_LINE_LETTERS = 4
"""Lines with fewer letters and digits (brackets, rules) do not count."""
MIN_SENTENCE_BYTES = 24
"""UTF-8 bytes from which a sentence may not follow itself: five English words, eight Chinese characters."""
MIN_CLAUSE_BYTES = 16
"""UTF-8 bytes from which a clause counts: three English words, six Chinese characters."""
MIN_CLAUSES_BYTES = 200
"""Together, the clauses must be that long."""
MIN_LONG_SENTENCE = 200
"""Characters below which a sentence's words are not counted; any with 200 words is longer."""

_WIDE_STOPS = r"\u3002\uff01\uff1f"
_SENTENCE_END = re.compile(rf"(?<=[.!?])\s+|(?<=[{_WIDE_STOPS}])|\n+")
_PARAGRAPH = re.compile(r"\n+")
_CLAUSE_END = re.compile(rf"[.!?,;:\n{_WIDE_STOPS}\uff0c\uff1b\uff1a\u3001]+")
_CONNECTIVE = re.compile(
    r"^(?:(?:and|but|so|then|thus|hence|since|because|therefore|however|again|as|that|this means|we know)\s+)+"
)
_WORD = re.compile(r"[\u3400-\u9fff\u3040-\u30ff\uac00-\ud7af]|[^\W\d_]+")
"""A word, or a character of a script without spaces."""


def repeated_lines(text: str) -> Finding:
    """Return the share of lines that stood before, of all lines with four letters. Unit: share, in [0, 1).

    Source: spec section 9, "too many duplicate lines"; the limit is ours, above songs with a refrain.
    """
    if text.count("\n") < MIN_LINES - 1:
        return NOTHING
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if sum(map(str.isalnum, line)) >= MIN_LINE_LETTERS]
    if len(lines) < MIN_LINES:
        return NOTHING
    return _share_seen_before(((line, 1) for line in lines), "lines")


def repeated_sentences(text: str) -> Finding:
    """Count sentences of some length that directly follow themselves on the same line. Unit: sentences.

    Source: spec section 9, the repeated closing sentence in ShareGPT4V. Songs repeat lines, not sentences on a line.
    """
    count, last = 0, ""
    for paragraph in _PARAGRAPH.split(text):
        previous = ""
        for sentence in map(str.strip, _SENTENCE_END.split(paragraph)):
            if sentence == previous and len(sentence.encode("utf-8", "replace")) >= MIN_SENTENCE_BYTES:
                count, last = count + 1, sentence
            previous = sentence
    return Finding(count, f"follows itself: {quote(last)}") if count else NOTHING


def repeated_clauses(text: str) -> Finding:
    """Return the share of the text in clauses that stood before; their connectives do not matter. Unit: share.

    Sees reasoning in a circle: the same claims again and again, behind another "hence". Source: spec section 9
    (circular proofs in Magpie); measure and limit are ours.
    """
    clauses = [_CONNECTIVE.sub("", clause.strip()) for clause in _CLAUSE_END.split(text.lower())]
    weighed = [(clause, len(clause.encode("utf-8", "replace"))) for clause in clauses]
    weighed = [(clause, weight) for clause, weight in weighed if weight >= MIN_CLAUSE_BYTES]
    if sum(weight for _, weight in weighed) < MIN_CLAUSES_BYTES:
        return NOTHING
    return _share_seen_before(weighed, "clauses")


def sentence_length(text: str) -> Finding:
    """Return the words of the longest sentence; a line's end ends one. Unit: words (Chinese: characters).

    Source: spec section 9, "abnormal sentence length"; the limit is ours, twice the longest sentence of legal texts.
    """
    longest = max(_SENTENCE_END.split(text), key=len)
    if len(longest) < MIN_LONG_SENTENCE:
        return NOTHING
    words = len(_WORD.findall(longest))
    return Finding(words, f"a sentence of {words} words: {quote(longest.strip())}")


def _share_seen_before(weighed: Iterable[tuple[str, int]], what: str) -> Finding:
    """Return the share of weight of pieces that stood before, with the one that recurs most."""
    counts: dict[str, int] = {}
    total = again = 0
    for piece, weight in weighed:
        total += weight
        if piece in counts:
            again += weight
            counts[piece] += 1
        else:
            counts[piece] = 1
    if not again:
        return NOTHING
    most = max(counts, key=counts.__getitem__)
    return Finding(again / total, f"{again / total:.0%} of the {what} stood before, {counts[most]} times {quote(most)}")
