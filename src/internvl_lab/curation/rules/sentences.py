"""Rules about lines, sentences and clauses; each takes the text of one answer."""

from __future__ import annotations

import re
from collections.abc import Iterable

from internvl_lab.curation.rules.finding import NOTHING, Finding, quote

MIN_LINES = 8
"""Answers with fewer lines repeat none."""
MIN_SENTENCE_BYTES = 24
"""UTF-8 bytes from which a sentence may not follow itself: five English words, eight Chinese characters."""
MIN_CLAUSE_BYTES = 16
"""UTF-8 bytes from which a clause counts: three English words, six Chinese characters."""
MIN_SPACES = 2
"""Spaces that make ASCII a phrase; keys of JSON and statements of code have fewer, and recur for good reason."""
MIN_CLAUSES_BYTES = 200
"""Together, the clauses must be that long."""
MIN_LONG_SENTENCE = 200
"""Characters below which a sentence's words are not counted; any with 200 words is longer."""

_WIDE_STOPS = r"\u3002\uff01\uff1f"
_SENTENCE_END = re.compile(rf"(?<=[.!?])\s+|(?<=[{_WIDE_STOPS}])|\n+")
_PARAGRAPH = re.compile(r"\n+")
_CLAUSE_END = re.compile(rf"[.!?,;:]+(?:\s|$)|[\n{_WIDE_STOPS}\uff0c\uff1b\uff1a\u3001]+")
_PROSE_END = re.compile(rf"(?<=[.!?;{{}}<>|])|[{_WIDE_STOPS}]|\n+")
"""Ends of sentences where code and markup may stand as well."""
_CONNECTIVE = re.compile(
    r"^(?:(?:and|but|so|then|thus|hence|since|because|therefore|however|again|as|that|this means|we know)\s+)+"
)
_WORD = re.compile(r"[\u3400-\u9fff\u3040-\u30ff\uac00-\ud7af]|(?<!\S)[^\W\d_]+(?![^\s.,;:!?)])")
"""A word between spaces, or a character of a script without spaces; no formula and no Base64."""


def repeated_lines(text: str) -> Finding:
    """Return the share of lines that stood before, of all that hold a phrase. Unit: share, in [0, 1).

    Source: spec section 9, "too many duplicate lines"; the limit is ours; songs with a refrain reach 0.42.
    """
    if text.count("\n") < MIN_LINES - 1:
        return NOTHING
    lines = [line for line in map(str.strip, text.splitlines()) if _is_phrase(line)]
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
    weighed = [(clause, weight) for clause, weight in weighed if weight >= MIN_CLAUSE_BYTES and _is_phrase(clause)]
    if sum(weight for _, weight in weighed) < MIN_CLAUSES_BYTES:
        return NOTHING
    return _share_seen_before(weighed, "clauses")


def sentence_length(text: str) -> Finding:
    """Return the words of the longest sentence; ends of lines, brackets and tags end one. Unit: words (Chinese: signs).

    Source: spec section 9, "abnormal sentence length"; the limit is ours; legal clauses of the labelled
    set have up to 156 words.
    """
    longest = max(_PROSE_END.split(text), key=len)
    if len(longest) < MIN_LONG_SENTENCE:
        return NOTHING
    words = len(_WORD.findall(longest))
    return Finding(words, f"a sentence of {words} words: {quote(longest.strip())}")


def _is_phrase(piece: str) -> bool:
    """Tell whether a piece of text is made of words, or of a script without spaces."""
    return piece.count(" ") >= MIN_SPACES or (bool(piece) and not piece.isascii())


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
