"""What `python -m internvl_lab evaluate` takes: key=value words, typed, unknown keys refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from internvl_lab.config.asking import AskingConfig
from internvl_lab.config.checks import at_least
from internvl_lab.config.typed import from_mapping
from internvl_lab.errors import ConfigError

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class EvaluateConfig:
    """Say what is evaluated on which benchmarks."""

    checkpoint: str
    """Run folder, weights folder or asset:NAME."""
    tasks: tuple[str, ...]
    """Benchmarks, `all_<capability>`, miniworld, or single tasks of miniworld."""
    out: str = "outputs/evaluation"
    data: str = "data/benchmarks"
    """Folder with the benchmarks' files, as each says where they belong."""
    samples_per_task: int | None = None
    """Ask only the first so many questions of a task; the report says so."""
    blind: bool = False
    """Ask a second time with every tile grey, to show what the text alone gives away."""
    batch_size: int = 16
    max_tiles: int | None = None
    """Override every benchmark's own tile limit."""
    max_new_tokens: int | None = None
    """Override every benchmark's own limit of an answer."""
    dtype: str = "float32"
    device: str = "auto"
    """`auto` takes the GPU where there is one."""
    seed: int = 0
    """Written beside the scores; decoding is greedy and uses none."""
    judge_answers: str | None = None
    """JSONL file with a judge's scores for the sets that need one; goes before asking."""
    judge: AskingConfig = field(default_factory=AskingConfig)
    """Whom to ask about the sets that need a judge; nobody unless `judge.url` is given."""
    wandb: str = "disabled"
    """`offline` or `online` logs the tables to W&B as well."""

    def __post_init__(self) -> None:
        """Refuse what cannot be evaluated."""
        at_least(self, "", 1, "samples_per_task", "batch_size", "max_tiles", "max_new_tokens")
        if not self.tasks:
            raise ConfigError("tasks=[] must name at least one task, for example tasks=[miniworld]")
        if self.judge.max_answer_tokens != AskingConfig.max_answer_tokens:
            raise ConfigError(
                "judge.max_answer_tokens is each benchmark's own; override it by judge.request={max_tokens: N}"
            )
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype={self.dtype} must be one of {', '.join(DTYPES)}")
        if self.wandb not in ("disabled", "offline", "online"):
            raise ConfigError(f"wandb={self.wandb} must be disabled, offline or online")


def parse_words(words: Sequence[str]) -> EvaluateConfig:
    """Read the words of `evaluate`.

    Raises:
        ConfigError: as `read_words`; also a key that is unknown or missing, or a value of the wrong type.
    """
    values = read_words(words)
    for needed in ("checkpoint", "tasks"):
        if needed not in values:
            raise ConfigError(f"{needed}= is missing; for example checkpoint=asset:quickstart tasks=[miniworld]")
    if isinstance(values["tasks"], str):
        values["tasks"] = [values["tasks"]]
    if "url" in values.get("judge", {}):
        values["judge"].setdefault("kind", "openai")
    return from_mapping(EvaluateConfig, values)


def read_words(words: Sequence[str]) -> dict[str, Any]:
    """Read key=value words; values are YAML, so that `tasks=[a,b]` is a list and `null` nothing.

    `judge.url=X judge.model=Y` gives {"judge": {"url": X, "model": Y}}.

    Raises:
        ConfigError: a word without =, a key twice, or a value that is no YAML; names the key.
    """
    values: dict[str, Any] = {}
    for word in words:
        key, sign, text = word.partition("=")
        if not sign:
            raise ConfigError(f"{word!r} is no key=value; for example checkpoint=asset:quickstart tasks=[miniworld]")
        group, dot, name = key.partition(".")
        place = values.setdefault(group, {}) if dot else values
        if not isinstance(place, dict) or (name if dot else key) in place:
            raise ConfigError(f"{key} is given twice")
        place[name if dot else key] = _read(key, text)
    return values


def _read(key: str, text: str) -> Any:
    """Read one value; a path with YAML's special characters stays the text it is."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"cannot read {key}={text}: {' '.join(str(error).split())}") from error
    return text if key in ("checkpoint", "out", "data", "judge_answers") and value is not None else value
