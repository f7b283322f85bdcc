"""Find the parts of a text that have stood in it before, to show a reviewer where it loops."""

from __future__ import annotations

SHINGLE_CHARS = 24
"""A stretch of so many characters must recur to be marked: about four words."""
MAX_CHARS = 200_000


def repeated_spans(text: str, shingle_chars: int = SHINGLE_CHARS) -> list[tuple[int, int]]:
    """Return [start, stop) of all characters that belong to a stretch seen before, as few spans as possible.

    Characters, not words, so that loops without spaces, of digits and of Chinese are found too. The first occurrence is
    not marked. Only the first `MAX_CHARS` characters are looked at.
    """
    seen: set[str] = set()
    spans: list[tuple[int, int]] = []
    for start in range(min(len(text), MAX_CHARS) - shingle_chars + 1):
        shingle = text[start : start + shingle_chars]
        if shingle not in seen:
            seen.add(shingle)
            continue
        stop = start + shingle_chars
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], stop)
        else:
            spans.append((start, stop))
    return spans


def marked_parts(text: str, max_chars: int) -> list[tuple[str, bool]]:
    """Cut a text into (part, is repeated), in order; beyond `max_chars` it is left out, and the last part says so."""
    parts: list[tuple[str, bool]] = []
    shown, end = text[:max_chars], 0
    for start, stop in repeated_spans(shown):
        parts += [(shown[end:start], False), (shown[start:stop], True)]
        end = stop
    parts.append((shown[end:], False))
    if len(text) > max_chars:
        parts.append((f"\n[... {len(text) - max_chars} more characters]", False))
    return [(part, repeated) for part, repeated in parts if part]
