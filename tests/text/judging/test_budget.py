import threading

import pytest

from internvl_lab.config.asking import AskingConfig
from internvl_lab.errors import BudgetError
from internvl_lab.text.judging.answer_store import AnswerStore
from internvl_lab.text.judging.budget import Budget
from internvl_lab.text.judging.judge import Reply


def config(**changes):
    return AskingConfig(model="m", **changes)


@pytest.fixture
def store(tmp_path):
    store = AnswerStore(tmp_path / "judge.sqlite")
    yield store
    store.close()


def test_the_real_price_replaces_the_highest(store):
    budget = Budget(config(prompt_price=2.0, answer_price=10.0), store)
    call = budget.open_call(1, 1_000_000, 100_000)
    assert (budget.calls, budget.cost) == (1, pytest.approx(3.0))
    budget.close_call(call, {"a": Reply("x", 500_000, 50_000)})
    assert (budget.calls, budget.cost) == (1, pytest.approx(1.5))
    assert store.totals() == (1, pytest.approx(1.5))


def test_calls_that_were_not_paid_do_not_count_and_those_that_may_be_do(store):
    budget = Budget(config(max_calls=1), store)
    budget.close_call(budget.open_call(1, 0, 0), {})
    budget.abandon_call(budget.open_call(1, 0, 0))
    with pytest.raises(BudgetError, match=r"used up \(1 calls.*judge\.max_calls=1\).*run the same command"):
        budget.open_call(1, 0, 0)


def test_the_bound_holds_over_runs(store):
    first = Budget(config(max_cost=1.0, prompt_price=1.0), store)
    first.abandon_call(first.open_call(1, 600_000, 0))
    second = Budget(config(max_cost=1.0, prompt_price=1.0), store)
    with pytest.raises(BudgetError, match=r"cost 0\.6000"):
        second.open_call(1, 600_000, 0)
    second.open_call(1, 400_000, 0)


def test_near_the_end_a_call_waits_for_those_in_flight(store):
    budget = Budget(config(max_cost=1.0, prompt_price=1.0), store)
    first = budget.open_call(1, 900_000, 0)
    opened = threading.Event()

    def second():
        budget.open_call(1, 900_000, 0)
        opened.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert not opened.wait(0.05)
    budget.close_call(first, {"a": Reply("x", 100_000, 0)})
    assert opened.wait(5)
    thread.join()
    assert budget.cost == pytest.approx(1.0)
