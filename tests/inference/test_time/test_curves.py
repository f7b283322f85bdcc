"""Curves: exact formulas against plain enumeration of all subsets in all orders, and unbiasedness."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_lab.inference.test_time import curves as module
from internvl_lab.inference.test_time.curves import (
    CURVES,
    Outcome,
    best_of_at,
    bootstrap,
    curve,
    grid,
    is_exact,
    majority_at,
    pass_at,
    weighted_at,
)
from internvl_lab.inference.test_time.voting import best_of_n, majority, weighted


def outcome(answers: list[str], right: str = "a", scores: list[float] | None = None) -> Outcome:
    return Outcome(tuple(answers), tuple(a == right for a in answers), tuple(scores or [0.5] * len(answers)))


answers_of = st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=4)


@given(answers_of)
def test_majority_equals_the_mean_over_all_ordered_subsets(answers: list[str]) -> None:
    made = outcome(answers)
    for size in range(1, len(answers) + 1):
        draws = list(permutations(range(len(answers)), size))
        hits = [made.right[order[majority([answers[i] for i in order])]] for order in draws]
        assert majority_at(made, size) == pytest.approx(np.mean(hits), abs=1e-12)


def test_majority_counts_right_spellings_of_one_answer() -> None:
    made = Outcome(("2", "2.0", "3"), (True, False, False), (0.5,) * 3)
    draws = list(permutations(range(3), 3))
    hits = [made.right[order[majority([made.answers[i] for i in order])]] for order in draws]
    assert majority_at(made, 3) == pytest.approx(np.mean(hits)) == 0.5


@given(answers_of)
def test_pass_equals_the_share_of_subsets_with_a_right_one(answers: list[str]) -> None:
    made = outcome(answers)
    for size in range(1, len(answers) + 1):
        hits = [any(made.right[i] for i in subset) for subset in combinations(range(len(answers)), size)]
        assert pass_at(made, size) == pytest.approx(np.mean(hits))


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c", ""]), st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0])),
        min_size=1,
        max_size=6,
    )
)
def test_weighted_and_best_of_n_equal_the_selectors_over_all_subsets(pairs: list[tuple[str, float]]) -> None:
    answers, scores = [a for a, _ in pairs], [s for _, s in pairs]
    made = outcome(answers, scores=scores)
    for size in range(1, len(pairs) + 1):
        subsets = list(combinations(range(len(pairs)), size))
        for at, select in ((weighted_at, weighted), (best_of_at, best_of_n)):
            chosen = [subset[select([answers[i] for i in subset], [scores[i] for i in subset])] for subset in subsets]
            assert at(made, size) == pytest.approx(np.mean([made.right[i] for i in chosen]), abs=1e-12)


def test_large_sets_are_drawn_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    made = outcome(rng.choice(["a", "b", "c"], 12).tolist(), scores=rng.random(12).tolist())
    exact = weighted_at(made, 6)
    assert is_exact(12, 6) and not is_exact(16, 8)
    monkeypatch.setattr(module, "MAX_SUBSETS", 700)
    module._subsets.cache_clear()
    assert not is_exact(12, 6)
    drawn = weighted_at(made, 6)
    module._subsets.cache_clear()
    assert drawn != exact and drawn == pytest.approx(exact, abs=4 * 0.5 / 700**0.5)


def test_estimates_are_unbiased() -> None:
    """From n = 6 samples of a known distribution, the mean of maj@3 and pass@3 is that of three fresh samples."""
    rng = np.random.default_rng(1)
    draws = rng.choice(["a", "b", "c"], (3000, 6), p=[0.5, 0.3, 0.2])
    fresh = rng.choice(["a", "b", "c"], (6000, 3), p=[0.5, 0.3, 0.2])
    expected = np.mean([row[majority(list(row))] == "a" for row in fresh])
    assert np.mean([majority_at(outcome(list(row)), 3) for row in draws]) == pytest.approx(expected, abs=0.02)
    assert np.mean([pass_at(outcome(list(row)), 3) for row in draws]) == pytest.approx(1 - 0.5**3, abs=0.02)


def test_all_curves_start_at_the_share_of_right_samples() -> None:
    made = outcome(["a", "b", "", "a", "c"], scores=[0.1, 0.5, 0.2, 0.3, 0.9])
    assert {name: curve(name, [made], [1]).item() for name in CURVES} == pytest.approx(dict.fromkeys(CURVES, 0.4))


def test_grid() -> None:
    assert grid(1) == [1] and grid(5) == [1, 2, 3, 4, 5]
    assert grid(20) == [1, 2, 3, 4, 5, 6, 7, 8, 16, 20] and grid(64)[-3:] == [16, 32, 64]


def test_bands_hold_the_mean_and_follow_the_seed() -> None:
    values = np.random.default_rng(0).random((80, 2))
    bands = bootstrap(values, 400, 3)
    assert [band.mean for band in bands] == pytest.approx(values.mean(axis=0).tolist())
    # the normal interval of a mean
    half = 1.96 * values.std(axis=0) / 80**0.5
    assert [(b.high - b.low) / 2 for b in bands] == pytest.approx(half.tolist(), rel=0.15)
    assert bootstrap(values, 400, 3) == bands != bootstrap(values, 400, 4)
    with pytest.raises(ValueError, match="no questions"):
        bootstrap(np.zeros((0, 2)), 10, 0)
