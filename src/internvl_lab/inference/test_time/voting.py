"""Make one answer of many: votes, weighted votes, or the candidate that a critic likes best.

Answers are compared after `answers.normalise`. An empty answer abstains. Ties go to the answer that came first, so a
result depends on the order of the candidates and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from internvl_lab.inference.test_time.answers import normalise

Select = Callable[[Sequence[str], Sequence[float]], int]
"""(final answers, critic's scores) -> index of the candidate whose answer wins; scores are ignored by some."""


def first(answers: Sequence[str], scores: Sequence[float]) -> int:
    """Take the first candidate."""
    del scores
    _check(answers)
    return 0


def majority(answers: Sequence[str], scores: Sequence[float] = ()) -> int:
    """Take the first candidate with the answer that most candidates give.

    Raises:
        ValueError: no candidates.
    """
    del scores
    return weighted(answers, [1.0] * len(answers))


def weighted(answers: Sequence[str], scores: Sequence[float]) -> int:
    """Take the first candidate with the answer whose scores (>= 0) sum to most.

    Raises:
        ValueError: no candidates, not as many scores, or a negative one.
    """
    _check(answers, scores)
    if min(scores) < 0:
        raise ValueError(f"a vote cannot weigh {min(scores)}")
    totals: dict[str, float] = {}
    places: dict[str, int] = {}
    for place, (answer, score) in enumerate(zip(answers, scores, strict=True)):
        if name := normalise(answer):
            totals[name] = totals.get(name, 0.0) + score
            places.setdefault(name, place)
    if not totals:
        return 0
    # max keeps the first of equals, and a dict keeps the order in which answers came
    return places[max(totals, key=lambda name: totals[name])]


def best_of_n(answers: Sequence[str], scores: Sequence[float]) -> int:
    """Take the first of the candidates with the highest score.

    Raises:
        ValueError: no candidates, or not as many scores.
    """
    _check(answers, scores)
    return max(range(len(scores)), key=lambda place: scores[place])


SELECT: dict[str, Select] = {"first": first, "majority": majority, "weighted": weighted, "best_of_n": best_of_n}
"""The ways to select, as `select=` names them."""


def _check(answers: Sequence[str], scores: Sequence[float] | None = None) -> None:
    if not answers or (scores is not None and len(scores) != len(answers)):
        raise ValueError(f"{len(answers)} answers with {'no' if scores is None else len(scores)} scores")
