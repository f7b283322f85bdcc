"""Bound what a judge may cost: nothing is sent unless its highest price still fits.

The highest price of a call counts one token a byte of the prompt (no byte-level tokenizer makes more) and the whole
answer limit. It is replaced by the real price when the answer is there, so the bound is never passed, and near its end
calls wait for those in flight, which may free some of it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from internvl_lab.config.asking import AskingConfig
from internvl_lab.errors import BudgetError
from internvl_lab.text.judging.answer_store import AnswerStore
from internvl_lab.text.judging.judge import Reply

TOKENS_PER_PRICE = 1_000_000


class Budget:
    """Count calls and cost over the life of a cache, and refuse what would pass the limits; threads may share it.

    Args:
        config: `max_calls`, `max_cost` and the two prices.
        store: where calls are written down.
    """

    def __init__(self, config: AskingConfig, store: AnswerStore) -> None:
        self._config, self._store = config, store
        self._changed = threading.Condition()
        self._in_flight: dict[int, tuple[int, float]] = {}
        self.calls, self.cost = store.totals()

    def price(self, prompt_tokens: int, answer_tokens: int) -> float:
        """Return the price of so many tokens."""
        asked, said = self._config.prompt_price * prompt_tokens, self._config.answer_price * answer_tokens
        return (asked + said) / TOKENS_PER_PRICE

    def open_call(self, number: int, prompt_tokens: int, answer_tokens: int) -> int:
        """Charge a call of `number` questions at its highest price before it is sent; returns its id.

        Waits while it does not fit but calls in flight may free some of the budget.

        Raises:
            BudgetError: it does not fit.
        """
        cost = self.price(prompt_tokens, answer_tokens)
        with self._changed:
            while not self._fits(number, cost):
                if not self._in_flight:
                    raise BudgetError(self._message())
                self._changed.wait()
            call = self._store.open_call(number, cost)
            self._in_flight[call] = (number, cost)
            self._add(number, cost)
        return call

    def close_call(self, call: int, replies: Mapping[str, Reply]) -> None:
        """Store a call's answers and charge their real price instead of the highest; without answers, nothing."""
        priced = {key: (reply, self.price(reply.prompt_tokens, reply.answer_tokens)) for key, reply in replies.items()}
        self._store.close_call(call, priced)
        with self._changed:
            number, cost = self._in_flight.pop(call)
            self._add(len(priced) - number, sum(price for _, price in priced.values()) - cost)
            self._changed.notify_all()

    def abandon_call(self, call: int) -> None:
        """Leave a call charged at its highest price: it may have been paid, although no answer arrived."""
        with self._changed:
            del self._in_flight[call]
            self._changed.notify_all()

    def _add(self, number: int, cost: float) -> None:
        self.calls, self.cost = self.calls + number, self.cost + cost

    def _fits(self, number: int, cost: float) -> bool:
        config, rounding = self._config, 1e-9
        return (config.max_calls is None or self.calls + number <= config.max_calls) and (
            config.max_cost is None or self.cost + cost <= config.max_cost + rounding
        )

    def _message(self) -> str:
        limits = {"max_calls": self._config.max_calls, "max_cost": self._config.max_cost}
        prefix = self._config.prefix
        named = " and ".join(f"{prefix}.{name}={value:g}" for name, value in limits.items() if value is not None)
        return (
            f"the judge's budget is used up ({self.calls} calls, cost {self.cost:.4f}; {named}); all answers are kept: "
            "raise the limit and run the same command again to go on"
        )
