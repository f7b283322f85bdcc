"""What a harness of others (lmms-eval, VLMEvalKit) may set when it drives a checkpoint of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from internvl_lab.config.checks import at_least
from internvl_lab.config.evaluate import DTYPES
from internvl_lab.config.typed import from_mapping
from internvl_lab.errors import ConfigError


@dataclass(frozen=True)
class HarnessConfig:
    """Say which checkpoint answers, and within which limits."""

    checkpoint: str
    """Run folder, weights folder in native or the authors' format, or asset:NAME."""
    max_tiles: int | None = None
    """Tile limit of each image; None = by the name of the set, as in the report."""
    num_frames: int = 32
    """Frames that are looked at where a harness hands over a video and not its frames."""
    max_new_tokens: int = 4096
    """Longest answer where the harness sets no limit. Source: spec section 11.1."""
    batch_size: int = 1
    dtype: str = "bfloat16"
    device: str = "auto"
    """`auto` takes the GPU where there is one."""
    seed: int = 0
    """Decides the draws where a harness asks for sampling."""

    def __post_init__(self) -> None:
        """Refuse what cannot answer."""
        at_least(self, "", 1, "max_tiles", "num_frames", "max_new_tokens", "batch_size")
        at_least(self, "", 0, "seed")
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype={self.dtype} must be one of {', '.join(DTYPES)}")


def harness_config(values: Mapping[str, Any]) -> HarnessConfig:
    """Read what a harness hands over; its own names and its numbers as text are understood, None is no value.

    Raises:
        ConfigError: an unknown key, a wrong value, or no checkpoint.
    """
    given = {name: value for name, value in values.items() if value is not None}
    for theirs in ("pretrained", "model_path"):
        if theirs in given:
            given.setdefault("checkpoint", given.pop(theirs))
    if "checkpoint" not in given:
        raise ConfigError("checkpoint= is missing: a run folder, a weights folder or asset:NAME")
    for name in ("batch_size", "max_tiles", "num_frames", "max_new_tokens", "seed"):
        text = given.get(name)
        if isinstance(text, str) and text.isdecimal():
            given[name] = int(text)
    return from_mapping(HarnessConfig, given)
