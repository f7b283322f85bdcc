"""Measure how much a text repeats itself: the single home of the measure, for curation and for evaluation.

A few thousand looping answers in stage 2 are enough to make a model loop, chain-of-thought first (spec section 9).
The authors' one concrete rule counts word n-grams. It is blind to scripts without spaces, and to tight loops, which
hold few distinct n-grams. The two measures beside it work on characters and see both:

    longest_repeat   the longest substring that occurs again, anywhere: doubled answers, long loops
    longest_loop     the longest stretch that keeps repeating one period: a loop in the tail of a sound answer

Both group all windows of `WINDOW` characters by a rolling hash, in numpy: O(n log n) for the sort, near linear in
practice, and cheap for a text in which no window occurs twice (33 µs for 930 characters).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from internvl_lab.config.curation import RulesConfig

WINDOW = 32
"""Characters that must repeat exactly before anything counts as a repeat: longer than the phrases prose reuses."""
MAX_PERIODS = 3
"""Distances between repeats that are tried as the period of a loop, the most frequent first."""
LIMITS = RulesConfig()
"""Limits of `Repetition.looping`: curation's defaults, so that both ends of training mean the same by a loop."""
MIN_LETTERS = 80
"""Texts with fewer letters and digits have no share of repeats: two short phrases alike are no loop."""

_BASE = 0x9E3779B97F4A7C15
"""Base of the rolling hash modulo 2^64; odd, so that it has an inverse. Hits are compared character by character."""


@dataclass(frozen=True)
class Stretch:
    """Locate what repeats."""

    start: int = 0
    """First character of the second copy."""
    length: int = 0
    """Characters copied."""
    period: int = 0
    """Characters back to the first copy."""
    letters: int = 0
    """Letters and digits among the copied characters."""


@dataclass(frozen=True)
class Repetition:
    """Hold all measures of one text."""

    ngram_share: float
    """`repeated_ngram_share`: the authors' measure, in [0, 0.5]."""
    ngram_excess: float
    """`ngram_excess`: word n-grams that repeat an earlier one, in [0, 1]."""
    repeat_share: float
    """Share of the text's letters in its longest repeated substring, in [0, 1)."""
    loop_letters: int
    """Letters and digits that the longest loop copies."""

    @property
    def looping(self) -> bool:
        """Tell whether any measure is above its limit: the answer loops."""
        words = max(self.ngram_share, self.ngram_excess) > LIMITS.repeated_ngrams.threshold
        repeat = self.repeat_share > LIMITS.longest_repeat.threshold
        return words or repeat or self.loop_letters > LIMITS.longest_loop.threshold


def measure_repetition(text: str) -> Repetition:
    """Measure one text, for example a generated answer, in every way this module knows."""
    repeat, loop = find_repeats(text)
    share = repeat_share(text, repeat)
    return Repetition(repeated_ngram_share(text), ngram_excess(text), share, loop.letters)


def looping_share(texts: Iterable[str]) -> float:
    """Return the share of texts that loop (`Repetition.looping`), for example of a model's answers; 0 for no texts."""
    found = [measure_repetition(text).looping for text in texts]
    return sum(found) / len(found) if found else 0.0


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
    if total == len(counts):
        return 0.0
    return sum(count > 1 for count in counts.values()) / total


def ngram_excess(text: str, n: int = 10) -> float:
    """Return the share of word n-grams that repeat an earlier one, in [0, 1); 0 for fewer than n words.

    Never below `repeated_ngram_share`, which counts each repeated n-gram once: a thousand times the same sentence
    scores near 0 there, and near 1 here.

    Raises:
        ValueError: n below 1.
    """
    counts = _count_ngrams(text, n)
    total = counts.total()
    return (total - len(counts)) / total if total else 0.0


def is_looping(text: str, n: int = 10, threshold: float = 0.4) -> bool:
    """Tell whether more than `threshold` of the word n-grams repeat an earlier one.

    Every text that the authors' rule (`repeated_ngram_share` > threshold) drops is flagged here too. For scripts
    without spaces and for loops at the end of long answers see `measure_repetition`.

    Raises:
        ValueError: n below 1.
    """
    return ngram_excess(text, n) > threshold


@lru_cache(maxsize=8)  # the two measures of one text are asked for one after the other
def find_repeats(text: str) -> tuple[Stretch, Stretch]:
    """Find the longest repeated substring and the longest loop of a text.

    Returns:
        (repeat, loop). The copies of `repeat` may overlap. `loop` is the longest stretch whose every character equals
        the one a fixed period before, for two periods or more. What holds fewer than two different letters or
        digits (rules, leaders, runs of one character) is neither. Each is empty where nothing longer than `WINDOW`
        repeats, and `repeat` also below an eighth of the text.
    """
    if len(text) <= WINDOW:
        return Stretch(), Stretch()
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    prefix, inverse = _prefix_hashes(codes)
    hashes = _window_hashes(prefix, inverse, WINDOW)
    in_order = np.sort(hashes)
    if not (in_order[1:] == in_order[:-1]).any():
        return Stretch(), Stretch()
    return _longest_repeat(text, codes, prefix, inverse), _longest_loop(text, codes, hashes)


def repeat_share(text: str, repeat: Stretch) -> float:
    """Return the share of a text's letters and digits that `repeat` copies; 0 for texts below `MIN_LETTERS`."""
    if not repeat.length:
        return 0.0
    letters = _count_letters(text)
    return repeat.letters / letters if letters >= MIN_LETTERS else 0.0


def _count_ngrams(text: str, n: int) -> Counter[tuple[str, ...]]:
    """Count the word n-grams of a text."""
    if n < 1:
        raise ValueError(f"n={n} must be at least 1")
    words = text.split()
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))


def _is_run(text: str) -> bool:
    """Tell whether a text holds fewer than two different letters or digits."""
    return len({character for character in text if character.isalnum()}) < 2


def _count_letters(text: str) -> int:
    return sum(map(str.isalnum, text))


def _prefix_hashes(codes: NDArray[np.uint32]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return prefix sums of code * base^i, (n + 1,), and base^-i, (n,), modulo 2^64."""
    size = len(codes)
    powers = np.full(size, _BASE, np.uint64)
    inverse = np.full(size, pow(_BASE, -1, 2**64), np.uint64)
    powers[:1] = inverse[:1] = 1
    prefix = np.zeros(size + 1, np.uint64)
    np.cumsum((codes + np.uint64(1)) * np.multiply.accumulate(powers), out=prefix[1:])
    return prefix, np.multiply.accumulate(inverse)


def _window_hashes(prefix: NDArray[np.uint64], inverse: NDArray[np.uint64], width: int) -> NDArray[np.uint64]:
    """Hash every window of `width` characters: (n - width + 1,)."""
    count = len(prefix) - width
    hashes: NDArray[np.uint64] = (prefix[width:] - prefix[:-width]) * inverse[:count]
    return hashes


def _neighbours(hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (earlier, later) positions of windows with equal hashes, each with the next one of its kind."""
    order = np.argsort(hashes, kind="stable")
    equal = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    return order[equal], order[equal + 1]


def _longest_repeat(
    text: str, codes: NDArray[np.uint32], prefix: NDArray[np.uint64], inverse: NDArray[np.uint64]
) -> Stretch:
    """Search the length of the longest repeated substring by bisection; lengths below an eighth are not searched."""
    low, high = max(WINDOW, len(codes) // 8), len(codes)
    found = _repeat_of(codes, prefix, inverse, low)
    if found is None:
        return Stretch()
    while high - low > 1:
        middle = (low + high) // 2
        longer = _repeat_of(codes, prefix, inverse, middle)
        if longer is None:
            high = middle
        else:
            low, found = middle, longer
    first, second = found
    if _is_run(text[second : second + low]):
        return Stretch()
    return Stretch(second, low, second - first, _count_letters(text[second : second + low]))


def _repeat_of(
    codes: NDArray[np.uint32], prefix: NDArray[np.uint64], inverse: NDArray[np.uint64], width: int
) -> tuple[int, int] | None:
    """Return the positions of two equal windows of `width` characters, or None."""
    earlier, later = _neighbours(_window_hashes(prefix, inverse, width))
    for first, second in zip(earlier[:4].tolist(), later[:4].tolist(), strict=True):  # more than one only to be sure
        if np.array_equal(codes[first : first + width], codes[second : second + width]):
            return first, second
    return None


def _longest_loop(text: str, codes: NDArray[np.uint32], hashes: NDArray[np.uint64]) -> Stretch:
    """Take the most frequent distances between equal windows as periods, and keep the one that copies most letters."""
    earlier, later = _neighbours(hashes)
    distances, counts = np.unique(later - earlier, return_counts=True)
    best = Stretch()
    for period in distances[np.argsort(-counts, kind="stable")][:MAX_PERIODS].tolist():
        start, length = _longest_run(codes[period:] == codes[:-period])
        start += period
        if length < max(WINDOW, 2 * period) or _is_run(text[start : start + period]):
            continue
        letters = _count_letters(text[start : start + length])
        if letters > best.letters:
            best = Stretch(start, length, period, letters)
    return best


def _longest_run(equal: NDArray[np.bool_]) -> tuple[int, int]:
    """Return (start, length) of the longest run of True in a bool array (n,)."""
    edges = np.flatnonzero(np.diff(equal, prepend=False, append=False))
    lengths = edges[1::2] - edges[::2]
    if not len(lengths):
        return 0, 0
    longest = int(lengths.argmax())
    return int(edges[2 * longest]), int(lengths[longest])
