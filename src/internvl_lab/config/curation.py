"""Settings of curation: one threshold a rule, exempt sources, expected scripts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase

from internvl_lab.config.curation_judge import JudgeConfig
from internvl_lab.errors import ConfigError

SCRIPTS = ("latin", "han", "kana", "hangul", "cyrillic", "greek", "arabic", "hebrew", "thai", "devanagari")
"""Scripts that `curation.languages` may name."""


@dataclass(frozen=True)
class RuleConfig:
    """Configure one rule: it rejects a record whose score is above the threshold."""

    threshold: float = math.nan
    """Highest score that passes, in the rule's unit."""
    enabled: bool = True
    """Whether the rule rejects. It is measured all the same, but for near duplicates, which need an extra."""
    exempt: tuple[str, ...] = ()
    """Sources that are trusted in this respect; `*` and `?` match as in file names."""

    def exempts(self, source: str) -> bool:
        """Tell whether this rule has no say about records of `source`."""
        return any(fnmatchcase(source, pattern) for pattern in self.exempt)


@dataclass(frozen=True)
class RulesConfig:
    """Hold every rule's setting; the rules themselves, with unit and source, stand in `curation.rules`."""

    malformed_record: RuleConfig = RuleConfig(0)
    """Faults of the JSON or its structure."""
    repeated_ngrams: RuleConfig = RuleConfig(0.4)
    """Share of 10-grams of words. Source: authors' `train/dataset.py`."""
    longest_repeat: RuleConfig = RuleConfig(0.4)
    """Share of the answer's letters inside its longest repeated substring."""
    longest_loop: RuleConfig = RuleConfig(120)
    """Letters and digits copied by one period repeated without a break."""
    repeated_lines: RuleConfig = RuleConfig(0.6)
    """Share of lines that stood before."""
    repeated_sentences: RuleConfig = RuleConfig(0)
    """Sentences that directly follow themselves."""
    repeated_clauses: RuleConfig = RuleConfig(0.55)
    """Share of the text in clauses that stood before."""
    character_run: RuleConfig = RuleConfig(20)
    """Times that one character follows itself."""
    zero_run: RuleConfig = RuleConfig(40)
    """Zeros in a row."""
    sentence_length: RuleConfig = RuleConfig(200)
    """Words of the longest sentence."""
    compression: RuleConfig = RuleConfig(10)
    """Bytes over compressed bytes."""
    placeholders: RuleConfig = RuleConfig(0)
    """Broken or misplaced placeholders."""
    copied_question: RuleConfig = RuleConfig(0.8)
    """Share of the answer that is the question."""
    language: RuleConfig = RuleConfig(0.5)
    """Share of letters in a script that the source should not hold."""
    boxes: RuleConfig = RuleConfig(0)
    """Malformed boxes."""
    unreadable_image: RuleConfig = RuleConfig(0)
    """Images that are missing or cannot be decoded."""
    blank_image: RuleConfig = RuleConfig(0.9995)
    """Share of an image's area in one colour."""
    exact_duplicate: RuleConfig = RuleConfig(0)
    """1 for a record that stood before."""
    near_duplicate: RuleConfig = RuleConfig(0.8)
    """Jaccard similarity to an earlier record. Source: Lee et al. 2022 (arXiv 2107.06499), section 4.2."""
    near_duplicate_image: RuleConfig = RuleConfig(0.92)
    """Share of equal bits of the perceptual hash, the text being the same."""

    def __post_init__(self) -> None:
        """Refuse rules without a threshold."""
        for name, rule in self:
            if not math.isfinite(rule.threshold):
                raise ConfigError(f"curation.rules.{name}.threshold={rule.threshold} must be a number")

    def __iter__(self) -> Iterator[tuple[str, RuleConfig]]:
        """Yield (name, setting) of every rule."""
        for item in fields(self):
            yield item.name, getattr(self, item.name)


@dataclass(frozen=True)
class CurationConfig:
    """Say what curation rejects."""

    rules: RulesConfig = field(default_factory=RulesConfig)
    languages: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Source (`*` and `?` match) to the scripts its answers may use; sources that match nothing may use any."""
    read_images: bool = True
    """Whether images are read; without, they are told apart by their names."""
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    """Scores by a language model; by default none."""

    def __post_init__(self) -> None:
        """Refuse unknown scripts."""
        for source, scripts in self.languages.items():
            if unknown := sorted(set(scripts) - set(SCRIPTS)):
                raise ConfigError(
                    f"curation.languages.{source}: script {unknown[0]!r} must be one of {', '.join(SCRIPTS)}"
                )

    def scripts_of(self, source: str) -> tuple[str, ...]:
        """Return the scripts that a source's answers may use, those of the first pattern that fits; () = any."""
        fitting = (scripts for pattern, scripts in self.languages.items() if fnmatchcase(source, pattern))
        return next(fitting, ())


@dataclass(frozen=True)
class CurateConfig:
    """Root of the command `curate`; `config.compose.compose_curation` makes it."""

    curation: CurationConfig = field(default_factory=CurationConfig)
