"""Measure how much a text repeats itself: the one concrete filter rule in the authors' code.

A few thousand looping answers in stage 2 are enough to make a model loop, chain-of-thought first (spec section 9).
"""

from __future__ import annotations

from collections import Counter


def repeated_ngram_share(text: str, n: int = 10) -> float:
    """Return the share of distinct word n-grams that occur more than once, relative to all n-grams.

    Args:
        text: any text; words are what whitespace separates, so scripts without spaces score 0.
        n: words in an n-gram, > 0.

    Returns:
        A value in [0, 0.5]: at most every second n-gram can be the first of a repeated one. 0 for fewer than n words.

    Raises:
        ValueError: n below 1.
    Source: authors' `train/dataset.py`, `calculate_ngram_repetition`.
    """
    counts = _count_ngrams(text, n)
    total = counts.total()
    return sum(count > 1 for count in counts.values()) / total if total else 0.0


def is_looping(text: str, n: int = 10, threshold: float = 0.4) -> bool:
    """Tell whether more than `threshold` of the word n-grams repeat an earlier one.

    Every text that the authors' rule (`repeated_ngram_share` > threshold) drops is flagged here too. That rule alone
    misses tight loops: it counts each repeated n-gram once, so a thousand times the same sentence scores near 0.

    Raises:
        ValueError: n below 1.
    """
    counts = _count_ngrams(text, n)
    total = counts.total()
    return total > 0 and (total - len(counts)) / total > threshold


def _count_ngrams(text: str, n: int) -> Counter[tuple[str, ...]]:
    """Count the word n-grams of a text."""
    if n < 1:
        raise ValueError(f"n={n} must be at least 1")
    words = text.split()
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))
