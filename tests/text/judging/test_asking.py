import threading

import pytest

from internvl_lab.config.asking import AskingConfig
from internvl_lab.errors import BudgetError, JudgeError
from internvl_lab.text.judging.answer_store import AnswerStore
from internvl_lab.text.judging.asking import Asker
from internvl_lab.text.judging.judge import Question, Reply, TransientError, Unanswered


class Script:
    """A judge that follows a script: text to the outcomes of its attempts; then it answers."""

    identity = "script"

    def __init__(self, outcomes=None, concurrency=4, batch_size=1):
        self.outcomes, self.concurrency, self.batch_size = outcomes or {}, concurrency, batch_size
        self.asked, self.guard = [], threading.Lock()

    def most_tokens(self, question):
        return 10, 10

    def ask(self, questions):
        with self.guard:
            self.asked.append([question.text for question in questions])
            outcomes = self.outcomes.get(questions[0].text) or [None]
            outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return [outcome or Reply(f"answer to {question.text}", 10, 1) for question in questions]


@pytest.fixture
def build(tmp_path):
    stores = []

    def make(judge, **changes):
        for store in stores:
            store.close()  # the next run
        stores.append(AnswerStore(tmp_path / "judge.sqlite"))
        return Asker(judge, stores[-1], AskingConfig(model="m", first_delay_s=0.0, **changes))

    yield make
    for store in stores:
        store.close()


def questions(*texts):
    return [Question("system", text) for text in texts]


def test_answers_come_in_order_and_equal_questions_are_asked_once(build):
    judge = Script()
    asker = build(judge)
    texts = ["c", "a", "b", "a", "c"]
    assert [reply.text for reply in asker.ask(questions(*texts))] == [f"answer to {text}" for text in texts]
    assert sorted(judge.asked) == [["a"], ["b"], ["c"]]
    asker.ask(questions(*texts))
    assert len(judge.asked) == 3
    assert (asker.num_asked, asker.num_cached) == (3, 5)


def test_another_run_finds_the_answers(build):
    build(Script()).ask(questions("a"))
    judge = Script()
    assert build(judge).ask(questions("a", "b"))[0].text == "answer to a"
    assert judge.asked == [["b"]]


def test_a_failed_attempt_is_repeated_and_the_rest_is_not(build):
    judge = Script({"a": [TransientError("HTTP 500"), TransientError("reset", may_be_paid=True)]})
    asker = build(judge)
    assert [reply.text for reply in asker.ask(questions("a", "b"))] == ["answer to a", "answer to b"]
    assert sorted(judge.asked) == [["a"], ["a"], ["a"], ["b"]]
    assert asker.budget.calls == 3  # the one that may be paid stays charged


def test_waits_double_up_to_the_limit_and_the_server_may_ask_for_more(build):
    asker = build(Script(), max_attempts=2)
    asker._config = AskingConfig(model="m", first_delay_s=1.0, max_delay_s=6.0)
    for attempt, longest in enumerate([1, 2, 4, 6, 6]):
        assert longest / 2 <= asker._delay(attempt, None) <= longest
    assert asker._delay(0, 3.5) == 3.5
    assert asker._delay(0, 3600.0) == 6.0


def test_a_server_that_asks_for_a_pause_gets_it_from_all_threads(build):
    asker = build(Script({"a": [TransientError("HTTP 429", retry_after_s=0.2)]}, concurrency=1))
    asker.ask(questions("a"))
    assert asker._not_before > 0


def test_out_of_attempts_is_unanswered_and_asked_again_in_the_next_run(build):
    asker = build(Script({"a": [TransientError("HTTP 500")] * 3}), max_attempts=3)
    first, second = asker.ask(questions("a", "b"))
    assert first == Unanswered("no answer after 3 attempts: HTTP 500")
    assert second.text == "answer to b"
    assert asker.ask(questions("a"))[0].text == "answer to a"


def test_a_dead_server_stops_the_run_instead_of_emptying_it(build):
    judge = Script({str(i): [TransientError("refused")] * 2 for i in range(100)}, concurrency=2)
    with pytest.raises(JudgeError, match=r"left more than .*max_unanswered_in_row=3 questions in a row.*refused"):
        build(judge, max_attempts=2, max_unanswered_in_row=3).ask(questions(*map(str, range(100))))
    assert len(judge.asked) <= 2 * (4 + 2)  # two attempts each, and what the other thread had begun


def test_single_questions_without_an_answer_do_not_stop_a_run(build):
    outcomes = {str(i): [TransientError("too long")] for i in range(0, 100, 2)}
    answers = build(Script(outcomes, concurrency=1), max_attempts=1, max_unanswered_in_row=1).ask(
        questions(*map(str, range(100)))
    )
    assert [isinstance(answer, Unanswered) for answer in answers] == [i % 2 == 0 for i in range(100)]


def test_an_error_that_no_attempt_can_mend_stops_at_once(build):
    judge = Script({"b": [JudgeError("wrong key")]}, concurrency=1)
    asker = build(judge)
    with pytest.raises(JudgeError, match="wrong key"):
        asker.ask(questions("a", "b", *"cdefghijklmnop"))
    assert asker.budget.calls >= 1
    assert build(Script()).ask(questions("a"))[0].text == "answer to a"


def test_the_budget_stops_a_run_and_more_of_it_goes_on(build):
    judge = Script(concurrency=1)
    texts = [f"t{i}" for i in range(10)]
    with pytest.raises(BudgetError):
        build(judge, max_calls=4).ask(questions(*texts))
    assert len(judge.asked) == 4
    assert [reply.text for reply in build(judge, max_calls=10).ask(questions(*texts))] == [
        f"answer to {text}" for text in texts
    ]
    assert sorted(text for (text,) in judge.asked) == sorted(texts)


def test_a_local_model_gets_batches_of_like_length(build):
    judge = Script(concurrency=1, batch_size=2)
    texts = ["aaaa", "b", "ccc", "dd", "e"]
    assert [reply.text for reply in build(judge).ask(questions(*texts))] == [f"answer to {text}" for text in texts]
    assert judge.asked == [["b", "e"], ["dd", "ccc"], ["aaaa"]]
