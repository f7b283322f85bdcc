r"""Accuracy as a function of the number of samples N, from one set of N_max samples a question.

Taking the first N samples would use a fraction of the set; these are averages over all its subsets of size N, and so
unbiased for N fresh samples:

| curve       | how                                                                                                    |
|-------------|--------------------------------------------------------------------------------------------------------|
| `pass`      | 1 - C(n-c, N) / C(n, N), c right ones of n (Chen et al. 2021)                                          |
| `majority`  | exact: all subsets are counted by generating functions, ties shared evenly among the tied              |
| `best_of_n` | exact: the sample of rank i wins C(n-1-i, N-1) / C(n, N) of the subsets                                |
| `weighted`  | exact over all subsets where there are at most MAX_SUBSETS, else over as many drawn ones (seeded)      |

Bands are percentile bootstraps over questions: how much the mean would move with other questions of the same kind.

Dimensions: Q questions, n samples a question, G values of N.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from internvl_lab.inference.test_time.answers import normalise

MAX_SUBSETS = 2000
"""Subsets over which a weighted vote is averaged; C(12, 6) = 924 are all of them, C(16, 8) = 12,870 are too many."""
CONFIDENCE = 0.95
TIE = 1e-12
"""Weights of two answers that differ by less are tied: sums depend on their order."""


@dataclass(frozen=True)
class Outcome:
    """Hold the samples of one question; all have n entries."""

    answers: tuple[str, ...]
    """Final answers."""
    right: tuple[bool, ...]
    scores: tuple[float, ...]
    """The critic's."""


@dataclass(frozen=True)
class Band:
    """Hold a mean with its confidence band."""

    mean: float
    low: float
    high: float


def pass_at(outcome: Outcome, size: int) -> float:
    """Return the chance that at least one of `size` samples is right. Source: Chen et al. 2021, equation 1."""
    n, wrong = len(outcome.right), len(outcome.right) - sum(outcome.right)
    return 1.0 - comb(wrong, size) / comb(n, size)


def majority_at(outcome: Outcome, size: int) -> float:
    """Return the chance that a majority of `size` samples is right; tied answers win equally often.

    A subset in which a right answer occurs m times wins if no other occurs more often. With c_i samples of answer i,
    the subsets that hold at most m of each are counted by the product over i of sum_{a<=m} C(c_i, a) x^a; a second
    variable y counts how often exactly m is met, because such a tie shares the win.
    """
    counts: dict[str, int] = {}
    right: dict[str, int] = {}
    for answer, is_right in zip(outcome.answers, outcome.right, strict=True):
        name = normalise(answer)
        counts[name] = counts.get(name, 0) + 1
        right[name] = right.get(name, 0) + is_right
    abstained = counts.pop("", 0)
    total = 0.0
    for name, count in counts.items():
        if right[name]:  # a score may forgive spelling that a vote does not, so count how many of them are right
            others = [other for key, other in counts.items() if key != name]
            total += right[name] / count * _wins(count, others, abstained, size)
    return total / comb(len(outcome.answers), size)


def _wins(count: int, others: Sequence[int], abstained: int, size: int) -> float:
    """Count the subsets that an answer with `count` samples wins; a tie of r + 1 counts 1 / (r + 1)."""
    silent = np.array([float(comb(abstained, a)) for a in range(size + 1)])[:, None]
    wins = 0.0
    for m in range(1, min(count, size) + 1):
        ways = silent  # (samples drawn, ties), number of ways
        for other in others:
            ways = _multiply(ways, other, m, size)
        ties = ways[size - m]
        wins += comb(count, m) * float((ties / np.arange(1, len(ties) + 1)).sum())
    return wins


def _multiply(ways: NDArray[np.float64], count: int, m: int, size: int) -> NDArray[np.float64]:
    """Add an answer with `count` samples, at most m of them drawn: (size + 1, R) -> (size + 1, R + 1)."""
    result = np.zeros((size + 1, ways.shape[1] + 1))
    for a in range(min(count, m, size) + 1):
        tie = int(a == m)
        result[a:, tie : tie + ways.shape[1]] += comb(count, a) * ways[: size + 1 - a]
    return result


def best_of_at(outcome: Outcome, size: int) -> float:
    """Return the chance that the best-scored of `size` samples is right; of equal scores the earlier is better."""
    n = len(outcome.scores)
    ranked = sorted(range(n), key=lambda i: -outcome.scores[i])
    return sum(comb(n - 1 - rank, size - 1) for rank, i in enumerate(ranked) if outcome.right[i]) / comb(n, size)


def weighted_at(outcome: Outcome, size: int, seed: int = 0) -> float:
    """Return the chance that a weighted vote of `size` samples is right: `voting.weighted`, all subsets at once."""
    names = [normalise(answer) for answer in outcome.answers]
    classes = [name for name in dict.fromkeys(names) if name]
    if not classes:
        return 0.0
    chosen = _subsets(len(names), size, seed)  # (M, n) bool
    member = np.array([[name == other for other in classes] for name in names])  # (n, K)
    totals = chosen @ (np.array(outcome.scores)[:, None] * member)  # (M, K)
    present = (chosen[:, :, None] & member).any(axis=1)
    place = (chosen[:, :, None] & member).argmax(axis=1)  # first candidate of each answer
    tied = present & (totals >= np.where(present, totals, -1.0).max(axis=1, keepdims=True) - TIE)
    winner = np.where(tied, place, len(names)).min(axis=1)  # len(names): nobody voted
    return float(np.append(outcome.right, False)[winner].mean())


@lru_cache(maxsize=256)
def _subsets(n: int, size: int, seed: int) -> NDArray[np.bool_]:
    """List all subsets of n samples, or draw MAX_SUBSETS of them: (M, n) bool, read-only."""
    if is_exact(n, size):
        picked = np.array(list(combinations(range(n), size)))
    else:
        keys = np.random.default_rng([seed, n, size]).random((MAX_SUBSETS, n))
        picked = keys.argsort(axis=1)[:, :size]
    chosen = np.zeros((len(picked), n), bool)
    np.put_along_axis(chosen, picked, True, axis=1)
    chosen.flags.writeable = False
    return chosen


def is_exact(n: int, size: int) -> bool:
    """Say whether `weighted_at` looks at all subsets."""
    return comb(n, size) <= MAX_SUBSETS


def grid(n: int) -> list[int]:
    """Return the values of N to show: all up to 8, then powers of two, and n itself."""
    return sorted({*range(1, min(n, 8) + 1), *(2**k for k in range(4, n.bit_length()) if 2**k <= n), n})


CURVES = {"majority": majority_at, "weighted": weighted_at, "best_of_n": best_of_at, "pass": pass_at}
"""Name to the expected result of one question at N."""


def curve(name: str, outcomes: Sequence[Outcome], sizes: Sequence[int]) -> NDArray[np.float64]:
    """Compute the expected result of each question at each N: (Q, G) in [0, 1]."""
    return np.array([[CURVES[name](outcome, size) for size in sizes] for outcome in outcomes])


def bootstrap(values: NDArray[np.float64], draws: int, seed: int) -> list[Band]:
    """Average over questions, with a percentile band over questions drawn anew.

    Args:
        values: (Q, G).
        draws: samples of Q questions with replacement.
        seed: of the draws.
    Returns:
        G bands.
    Raises:
        ValueError: no questions.
    """
    if not len(values):
        raise ValueError("no questions to average")
    rng = np.random.default_rng(seed)
    picked = rng.integers(0, len(values), (draws, len(values)))
    means = np.stack([values[rows].mean(axis=0) for rows in picked])
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(means, [tail, 100 - tail], axis=0)
    return [Band(*map(float, three)) for three in zip(values.mean(axis=0), low, high, strict=True)]
