from __future__ import annotations

import pytest

from internvl_lab.inference.test_time.voting import SELECT, best_of_n, first, majority, weighted


def test_the_majority_is_counted_after_normalising() -> None:
    assert majority(["3", "2", "2.0", "$2$"]) == 1
    assert majority(["a", "B.", "b"]) == 1


def test_ties_go_to_the_answer_that_came_first() -> None:
    assert majority(["b", "a", "a", "b"]) == 0
    assert majority(["c", "b", "a"]) == 0
    assert weighted(["a", "b"], [0.5, 0.5]) == 0
    assert best_of_n(["a", "b", "c"], [0.1, 0.7, 0.7]) == 1


def test_empty_answers_abstain() -> None:
    assert majority(["", "", "a"]) == 2
    assert majority(["", " "]) == 0


def test_weights_decide() -> None:
    assert weighted(["a", "a", "b"], [0.2, 0.2, 0.5]) == 2
    assert weighted(["a", "a", "b"], [0.3, 0.3, 0.5]) == 0


def test_all_ways_have_a_name() -> None:
    chosen = {name: select(["a", "b", "b"], [0.2, 0.1, 0.9]) for name, select in SELECT.items()}
    assert chosen == {"first": 0, "majority": 1, "weighted": 1, "best_of_n": 2}


@pytest.mark.parametrize(
    "call", [lambda: majority([]), lambda: weighted(["a"], []), lambda: best_of_n([], []), lambda: first([], [])]
)
def test_nothing_to_select_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="answers"):
        call()


def test_negative_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="weigh"):
        weighted(["a", "b"], [0.1, -0.1])
