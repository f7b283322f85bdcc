"""Settings of the judge: which language model scores records, how it is asked, and what it may cost.

Thresholds 7 and 3 are the report's examples; it publishes neither prompts nor the judge's size (spec sections 9, 14).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from internvl_lab.config.asking import AskingConfig
from internvl_lab.config.checks import at_least
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
class JudgeConfig(AskingConfig):
    """Say which model judges what, and within which limits; group `curation/judge`.

    `kind` may also be `local`: a transformers folder, which `model` then names.
    """

    prefix: ClassVar[str] = PREFIX
    kinds: ClassVar[tuple[str, ...]] = JUDGE_KINDS

    max_text_chars: int = 12000
    """Characters of a conversation that are shown to the judge; of a longer one the middle is left out."""
    batch_size: int = 8
    """Questions a local model answers side by side."""
    device: str = "auto"
    """Of a local model: `auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1` ..."""
    quality: QualityConfig = field(default_factory=QualityConfig)
    repetition: RepetitionConfig = field(default_factory=RepetitionConfig)

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        super().__post_init__()
        at_least(self, PREFIX, 1, "batch_size")
        at_least(self, PREFIX, 200, "max_text_chars")
