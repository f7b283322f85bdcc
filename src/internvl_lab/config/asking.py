"""Which language model is asked as a judge, how, and what that may cost; for curation and evaluation alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import urlsplit

from internvl_lab.config.checks import above_zero, at_least
from internvl_lab.errors import ConfigError


@dataclass(frozen=True)
class AskingConfig:
    """Say which model is asked, and within which limits."""

    prefix: ClassVar[str] = "judge"
    """The group of these keys in the caller's configuration, for messages."""
    kinds: ClassVar[tuple[str, ...]] = ("none", "openai")

    kind: str = "none"
    """`none` or `openai` (any URL that speaks /v1/chat/completions)."""
    model: str = ""
    """Name that the server knows the model by."""
    url: str = "http://127.0.0.1:8000/v1"
    """Base URL of the server; `/chat/completions` is appended."""
    api_key_variable: str | None = None
    """Environment variable that holds the API key; the key itself is never in a file or a log."""
    max_answer_tokens: int = 256
    request: dict[str, Any] = field(default_factory=dict)
    """Further fields of the request's body, for example `{seed: 0}`; a null takes a field of ours out."""
    concurrency: int = 16
    """Requests in flight at once; a kill -9 loses at most so many answers."""
    timeout_s: float = 120.0
    """Longest time without a byte, and longest time until the answer is whole."""
    max_attempts: int = 8
    first_delay_s: float = 1.0
    """Wait before the second attempt; doubles with each further one."""
    max_delay_s: float = 60.0
    """Longest wait between attempts, also where the server asks for more (Retry-After)."""
    max_unanswered_in_row: int = 20
    """Questions in a row that stay unanswered after all attempts before the run stops; single ones are put aside."""
    max_calls: int | None = None
    """Calls that may be paid, over all runs with the same cache; null = any number."""
    max_cost: float | None = None
    """What may be spent, in the currency of the prices, over all runs with the same cache; null = any sum."""
    prompt_price: float = 0.0
    """Price of a million prompt tokens."""
    answer_price: float = 0.0
    """Price of a million answer tokens."""
    cache: str | None = None
    """File of the paid answers; null = `judge.sqlite` in the output folder."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.kind not in self.kinds:
            raise ConfigError(f"{self.prefix}.kind={self.kind!r} must be one of {', '.join(self.kinds)}")
        if self.kind != "none" and not self.model:
            raise ConfigError(f"{self.prefix}.model is missing: the name of the judge's model, or its folder")
        address = urlsplit(self.url)
        if self.kind == "openai" and (address.scheme not in ("http", "https") or not address.hostname):
            raise ConfigError(f"{self.prefix}.url={self.url!r} must be an http or https URL")
        at_least(self, self.prefix, 1, "max_answer_tokens", "concurrency", "max_attempts")
        at_least(self, self.prefix, 0, "first_delay_s", "max_delay_s", "max_unanswered_in_row", "max_calls", "max_cost")
        at_least(self, self.prefix, 0, "prompt_price", "answer_price")
        above_zero(self, self.prefix, "timeout_s")
        if self.max_cost is not None and self.kind == "openai" and not self.prompt_price + self.answer_price:
            raise ConfigError(f"{self.prefix}.max_cost bounds nothing while prompt_price and answer_price are 0")
