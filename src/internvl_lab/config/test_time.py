"""How answers are drawn, and what a test-time scaling run does with many of them."""

from __future__ import annotations

from dataclasses import dataclass

from internvl_lab.config.checks import above_zero, at_least
from internvl_lab.errors import ConfigError

PROMPTS = ("direct", "cot")
SELECTIONS = ("first", "majority", "weighted", "best_of_n")
OWN_CRITICS = ("logprob", "self")


@dataclass(frozen=True)
class SamplingConfig:
    """Say how the next token is chosen; the default is greedy."""

    temperature: float = 0.0
    """Divides the logits; 0 = greedy, the other limits then do nothing."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probabilities reach this sum."""
    top_k: int = 0
    """Keep so many of the likeliest tokens; 0 = all."""
    repetition_penalty: float = 1.0
    """Divide positive, multiply negative logits of tokens that the prompt or the answer holds already; 1 = off."""
    num_samples: int = 1
    """Answers to each prompt."""
    seed: int = 0
    """Together with a prompt's key and the number of the sample it decides every draw."""

    def __post_init__(self) -> None:
        """Refuse limits that leave no token."""
        at_least(self, "sampling", 0, "temperature", "top_k", "seed")
        at_least(self, "sampling", 1, "num_samples")
        above_zero(self, "sampling", "repetition_penalty", "top_p")
        if self.top_p > 1:
            raise ConfigError(f"sampling.top_p={self.top_p} must lie in (0, 1]")


@dataclass(frozen=True)
class TestTimeConfig:
    """Hold one run of `python -m internvl_lab test-time`; `conf/test_time.yaml` has the defaults."""

    __test__ = False  # pytest takes every class named Test* for one of its own

    name: str = "none"
    """Name of the choice, for the report."""
    checkpoint: tuple[str, ...] = ()
    """Run folders, weights folders or `asset:NAME`; several answer together, as an ensemble."""
    out: str = ""
    """Folder of samples and report; the same command again resumes there."""
    data: str | None = None
    """Folder of held-out shards; null = miniworld's `val`, generated under `data_dir`."""
    data_dir: str = "data"
    tasks: tuple[str, ...] = ()
    """Tasks to answer; empty = all that the data holds."""
    samples_per_task: int = 100
    """Questions of each task."""
    prompt: str = "direct"
    """`direct`, or `cot` to ask for the steps first."""
    samples: int = 0
    """Answers drawn to each question by each checkpoint; 0 = greedy answers only."""
    select: str = "first"
    """What the report calls the result: `first`, `majority`, `weighted` (votes weighted by the critic), `best_of_n`."""
    critic: str = "logprob"
    """`logprob` (mean log-probability of the answer), `self` (each checkpoint judges its own answers), or the name of a
    checkpoint that judges all."""
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    seed: int = 0
    max_new_tokens: int = 256
    batch_size: int = 32
    """Answers that are decoded side by side."""
    bootstrap_draws: int = 1000

    def __post_init__(self) -> None:
        """Refuse what is missing or impossible."""
        for key in ("checkpoint", "out"):
            if not getattr(self, key):
                raise ConfigError(f"test-time: {key} is missing: {key}=DIR")
        for key, allowed in (("prompt", PROMPTS), ("select", SELECTIONS)):
            if getattr(self, key) not in allowed:
                raise ConfigError(f"test-time: {key}={getattr(self, key)!r} must be one of {', '.join(allowed)}")
        at_least(self, "test-time", 0, "samples", "seed", "top_k")
        at_least(self, "test-time", 1, "samples_per_task", "max_new_tokens", "batch_size", "bootstrap_draws")
        if self.select != "first" and self.samples < 1:
            raise ConfigError(f"test-time: select={self.select} needs samples=N of at least 1")
        if self.samples > 1 and self.temperature <= 0:
            raise ConfigError("test-time: temperature=0 would draw the same answer again and again; give samples=1")

        _ = self.sampling  # refuses impossible limits

    @property
    def sampling(self) -> SamplingConfig:
        """Return how the answers are drawn."""
        return SamplingConfig(
            self.temperature, self.top_p, self.top_k, num_samples=max(self.samples, 1), seed=self.seed
        )

    @property
    def judging_critic(self) -> str | None:
        """Return who reads the answers and judges them (`self` or a checkpoint); None where nobody has to."""
        return self.critic if self.samples and self.critic != "logprob" else None
