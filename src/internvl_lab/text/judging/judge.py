"""What a judge is: something that answers a question in words, or says why it cannot.

```
caller ── Question ──> asking (cache, budget, retries) ── Judge.ask ──> Reply | Unanswered
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from internvl_lab.errors import JudgeError


@dataclass(frozen=True)
class Question:
    """Hold what a judge is asked."""

    system: str
    """The task; "" sends no system message."""
    text: str
    """What is to be judged."""
    images: tuple[str, ...] = ()
    """Pictures behind the text, as `data:` URLs; only for judges that see."""


@dataclass(frozen=True)
class Reply:
    """Hold what a judge said, and what that took."""

    text: str
    prompt_tokens: int
    answer_tokens: int
    is_complete: bool = True
    """False where the answer ran into the token limit: `Score: 1` may be half of `Score: 10`."""


@dataclass(frozen=True)
class Unanswered:
    """Say in one line why there is no answer to a question."""

    reason: str


class TransientError(JudgeError):
    """Report a failed attempt that is worth another one.

    Args:
        detail: one line.
        retry_after_s: how long the server asked to be left alone, if it did.
        may_be_paid: an answer may have been made and charged, although none arrived.
    """

    def __init__(self, detail: str, retry_after_s: float | None = None, may_be_paid: bool = False) -> None:
        super().__init__(detail)
        self.retry_after_s, self.may_be_paid = retry_after_s, may_be_paid


class Judge(Protocol):
    """Answer questions; a call is one attempt."""

    identity: str
    """Everything beside the question that an answer depends on; part of the cache's key."""
    concurrency: int
    """Calls that may run at once, from different threads."""
    batch_size: int
    """Most questions of a call."""

    def ask(self, questions: Sequence[Question]) -> list[Reply | Unanswered]:
        """Answer each question, in order.

        Raises:
            TransientError: nothing was answered, another attempt may succeed.
            JudgeError: no attempt can succeed before a person has changed something.
        """
        ...

    def most_tokens(self, question: Question) -> tuple[int, int]:
        """Bound the tokens of (prompt, answer) from above, for the budget."""
        ...
