"""Every error this project raises on purpose, so that callers can catch one family.

Two classes of data error, because a loader must know which is which:
a `SampleError` condemns one sample (it is counted, logged and left out), a `ShardError`
condemns a file and is fatal.
"""

from __future__ import annotations


class InternVLLabError(Exception):
    """Stand at the root of all errors of this package."""


class ConfigError(InternVLLabError):
    """Report a setting that is unknown, missing or impossible; the message names the key."""


class MissingWeightsError(InternVLLabError):
    """Report weights that a configuration needs and that are not on this machine."""


class CheckpointError(InternVLLabError):
    """Report a checkpoint whose tensors, shapes or provenance do not fit."""


class TokenMismatchError(InternVLLabError):
    """Report visual tokens in the text that do not match the visual features."""


class NonFiniteError(InternVLLabError):
    """Report too many steps in a row with a non-finite loss or gradient."""


class ResumeError(InternVLLabError):
    """Report a saved state that does not belong to this data or configuration."""


class SampleError(InternVLLabError):
    """Condemn one sample: it is counted and left out, the others keep their order.

    Args:
        key: the sample's key.
        reason: short machine-readable class of the fault, for example `corrupt_image`.
        detail: one human-readable sentence.
    """

    def __init__(self, key: str, reason: str, detail: str = "") -> None:
        super().__init__(f"sample {key}: {reason}" + (f" ({detail})" if detail else ""))
        self.key, self.reason, self.detail = key, reason, detail

    def __reduce__(self) -> tuple[type[SampleError], tuple[str, str, str]]:
        """Pickle with all three arguments, because workers send errors between processes."""
        return type(self), (self.key, self.reason, self.detail)


class ShardError(InternVLLabError):
    """Report a shard that is missing, truncated or corrupt; fatal before training."""


class JudgeError(InternVLLabError):
    """Report a judge that cannot be used: wrong address, key or model, or too many records without an answer."""


class BudgetError(JudgeError):
    """Report that the judge's budget is used up; every answer paid so far is kept."""
