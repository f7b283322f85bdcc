"""Put questions to a judge: nothing twice, not more at once than allowed, again where it failed, never over budget.

```
questions ─ key ─> known? ── yes ──────────────────────────────────────> Reply
                     │ no (equal ones once)
                     ▼
             groups ─ threads ─ budget.open_call ─ judge.ask ─ budget.close_call (stored) ─> Reply
                                   ▲                  │
                                   └─ wait, double ───┘ TransientError; in the end Unanswered
```
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

from internvl_lab.config.asking import AskingConfig
from internvl_lab.errors import JudgeError
from internvl_lab.text.judging.answer_store import AnswerStore, answer_key
from internvl_lab.text.judging.budget import Budget
from internvl_lab.text.judging.judge import Judge, Question, Reply, TransientError, Unanswered

logger = logging.getLogger(__name__)

Group = tuple[tuple[str, Question], ...]
"""Keyed questions of one call."""


class Asker:
    """Ask a judge through its cache and budget.

    Args:
        judge: who answers.
        store: the cache; stays the caller's to close.
        config: limits.
    """

    def __init__(self, judge: Judge, store: AnswerStore, config: AskingConfig) -> None:
        self._judge, self._store, self._config = judge, store, config
        self.budget = Budget(config, store)
        self.num_asked = self.num_cached = self.num_unanswered = 0
        self._unanswered_in_row = 0
        self._guard, self._stop = threading.Lock(), threading.Event()
        self._not_before = 0.0
        self._jitter = random.Random(0)

    def ask(self, questions: Sequence[Question]) -> list[Reply | Unanswered]:
        """Answer each question, in order; equal ones are asked once.

        Raises:
            BudgetError: the budget is used up; what was answered is stored.
            JudgeError: the judge cannot be used, or leaves question after question unanswered.
        """
        keys = [answer_key(self._judge.identity, question) for question in questions]
        answers: dict[str, Reply | Unanswered] = dict(self._store.look_up(set(keys)))
        self.num_cached += sum(key in answers for key in keys)
        pending = {key: question for key, question in zip(keys, questions, strict=True) if key not in answers}
        answers.update(self._ask_all(pending))
        return [answers[key] for key in keys]

    def _ask_all(self, pending: dict[str, Question]) -> dict[str, Reply | Unanswered]:
        """Ask in groups from several threads; the first error ends it, after the calls in flight are stored."""
        # Neighbours of like length make the least padding in a local model's batch.
        size = self._judge.batch_size
        items = sorted(pending.items(), key=lambda item: len(item[1].text)) if size > 1 else list(pending.items())
        groups = [tuple(items[start : start + size]) for start in range(0, len(items), size)]
        answers: dict[str, Reply | Unanswered] = {}
        self._stop.clear()
        with ThreadPoolExecutor(self._judge.concurrency, thread_name_prefix="judge") as pool:
            futures = [pool.submit(self._ask_group, group) for group in groups]
            try:
                for future in as_completed(futures):
                    answers.update(future.result())
            except BaseException:
                self._cancel(futures)
                raise
        return answers

    def _cancel(self, futures: Sequence[Future[dict[str, Reply | Unanswered]]]) -> None:
        """Drop what waits; what is in flight goes on, because it is paid."""
        self._stop.set()
        for future in futures:
            future.cancel()

    def _ask_group(self, group: Group) -> dict[str, Reply | Unanswered]:
        """Ask one group; the first error stops all threads."""
        try:
            return self._count(self._try(group))
        except BaseException:
            self._stop.set()
            raise

    def _try(self, group: Group) -> dict[str, Reply | Unanswered]:
        """Ask one group until it is answered, refused or out of attempts; {} when all is stopped."""
        reason = ""
        for attempt in range(self._config.max_attempts):
            self._wait()
            if self._stop.is_set():
                return {}
            try:
                return self._attempt(group)
            except TransientError as error:
                reason = str(error)
                delay = self._delay(attempt, error.retry_after_s)
                logger.debug("judge: attempt %d failed (%s), next in %.1f s", attempt + 1, reason, delay)
                if attempt + 1 < self._config.max_attempts:
                    self._stop.wait(delay)
        reason = f"no answer after {self._config.max_attempts} attempts: {reason}"
        return {key: Unanswered(reason) for key, _ in group}

    def _attempt(self, group: Group) -> dict[str, Reply | Unanswered]:
        """Ask one group once; the answers are stored before anything else happens."""
        bounds = [self._judge.most_tokens(question) for _, question in group]
        call = self.budget.open_call(len(group), sum(asked for asked, _ in bounds), sum(said for _, said in bounds))
        try:
            replies = self._judge.ask([question for _, question in group])
        except TransientError as error:
            if error.may_be_paid:
                self.budget.abandon_call(call)
            else:
                self.budget.close_call(call, {})
            raise
        except JudgeError:
            self.budget.close_call(call, {})
            raise
        except BaseException:
            self.budget.abandon_call(call)
            raise
        answers = {key: reply for (key, _), reply in zip(group, replies, strict=True)}
        self.budget.close_call(call, {key: reply for key, reply in answers.items() if isinstance(reply, Reply)})
        return answers

    def _count(self, answers: dict[str, Reply | Unanswered]) -> dict[str, Reply | Unanswered]:
        """Count, and give up where nothing is answered any more, before a dead server puts a whole data set aside."""
        failed = [answer for answer in answers.values() if isinstance(answer, Unanswered)]
        with self._guard:
            self.num_asked += len(answers) - len(failed)
            self.num_unanswered += len(failed)
            self._unanswered_in_row = self._unanswered_in_row + len(failed) if len(failed) == len(answers) else 0
            too_many = self._unanswered_in_row > self._config.max_unanswered_in_row
        if too_many and failed:
            limit = f"{self._config.prefix}.max_unanswered_in_row={self._config.max_unanswered_in_row}"
            raise JudgeError(
                f"the judge left more than {limit} "
                f"questions in a row unanswered ({failed[-1].reason}); answers so far are kept: run the command again"
            )
        return answers

    def _wait(self) -> None:
        """Wait until the server wants to be asked again: who is told to slow down tells all threads."""
        while not self._stop.is_set() and (left := self._not_before - time.monotonic()) > 0:
            self._stop.wait(left)

    def _delay(self, attempt: int, retry_after_s: float | None) -> float:
        """Return the seconds before the next attempt: doubling, with jitter, or what the server asks for."""
        if retry_after_s is not None:
            delay = min(retry_after_s, self._config.max_delay_s)
            self._not_before = max(self._not_before, time.monotonic() + delay)
            return delay
        longest = min(self._config.first_delay_s * 2**attempt, self._config.max_delay_s)
        return float(longest * self._jitter.uniform(0.5, 1.0))
