"""Settings of the judge: which language model scores records, how it is asked, and what it may cost.

Thresholds 7 and 3 are the report's examples; it publishes neither prompts nor the judge's size (spec sections 9, 14).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from internvl_lab.config.checks import above_zero, at_least
from internvl_lab.errors import ConfigError

PREFIX = "curation.judge"
JUDGE_KINDS = ("none", "openai", "local")
ROUTERS = ("rules_first", "judge", "rules")
MAX_SCORE = 10
"""The scale of both scores is 0..10. Source: InternVL 2.5, section 4.3."""


@dataclass(frozen=True)
class ScoringConfig:
    """Say what a score is taken for."""

    enabled: bool = True
    threshold: float = 0.0
    """Records that score below it are rejected."""
    exempt: tuple[str, ...] = ()
    """Sources that are not scored, as shell patterns (`docvqa`, `academic_*`)."""

    def __post_init__(self) -> None:
        """Refuse thresholds off the scale."""
        if not 0 <= self.threshold <= MAX_SCORE:
            raise ConfigError(f"{PREFIX}.*.threshold={self.threshold} must lie in 0..{MAX_SCORE}")


@dataclass(frozen=True)
class QualityConfig(ScoringConfig):
    """Score the quality of text-only records with prompts per domain."""

    threshold: float = 7.0
    router: str = "rules_first"
    """Who names a record's domain: `rules_first` (cheap rules, the judge where they are unsure), `judge`, `rules`."""

    def __post_init__(self) -> None:
        """Refuse unknown routers."""
        super().__post_init__()
        if self.router not in ROUTERS:
            raise ConfigError(f"{PREFIX}.quality.router={self.router!r} must be one of {', '.join(ROUTERS)}")


@dataclass(frozen=True)
class RepetitionConfig(ScoringConfig):
    """Score the repetition of any record's text; 10 is none."""

    threshold: float = 3.0


@dataclass(frozen=True)
class JudgeConfig:
    """Say which model judges what, and within which limits; group `curation/judge`."""

    kind: str = "none"
    """`none`, `openai` (any URL that speaks /v1/chat/completions) or `local` (a transformers folder)."""
    model: str = ""
    """Name that the server knows the model by, or the folder of a local one."""
    url: str = "http://127.0.0.1:8000/v1"
    """Base URL of the server; `/chat/completions` is appended."""
    api_key_variable: str | None = None
    """Environment variable that holds the API key; the key itself is never in a file or a log."""
    max_answer_tokens: int = 256
    max_text_chars: int = 12000
    """Characters of a conversation that are shown to the judge; of a longer one the middle is left out."""
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
    batch_size: int = 8
    """Questions a local model answers side by side."""
    device: str = "auto"
    """Of a local model: `auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1` ..."""
    quality: QualityConfig = field(default_factory=QualityConfig)
    repetition: RepetitionConfig = field(default_factory=RepetitionConfig)

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.kind not in JUDGE_KINDS:
            raise ConfigError(f"{PREFIX}.kind={self.kind!r} must be one of {', '.join(JUDGE_KINDS)}")
        if self.kind != "none" and not self.model:
            raise ConfigError(f"{PREFIX}.model is missing: the name of the judge's model, or its folder")
        address = urlsplit(self.url)
        if self.kind == "openai" and (address.scheme not in ("http", "https") or not address.hostname):
            raise ConfigError(f"{PREFIX}.url={self.url!r} must be an http or https URL")
        at_least(self, PREFIX, 1, "max_answer_tokens", "concurrency", "max_attempts", "batch_size")
        at_least(self, PREFIX, 200, "max_text_chars")
        at_least(self, PREFIX, 0, "first_delay_s", "max_delay_s", "max_unanswered_in_row", "max_calls", "max_cost")
        at_least(self, PREFIX, 0, "prompt_price", "answer_price")
        above_zero(self, PREFIX, "timeout_s")
        if self.max_cost is not None and self.kind == "openai" and not self.prompt_price + self.answer_price:
            raise ConfigError(f"{PREFIX}.max_cost bounds nothing while prompt_price and answer_price are 0")
