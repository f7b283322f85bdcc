"""Score candidates for best-of-N and weighted votes; every score lies in [0, 1], more is better.

| critic          | score                                                                                            |
|-----------------|--------------------------------------------------------------------------------------------------|
| `LogprobCritic` | geometric mean of the probabilities that the model gave the candidate's own tokens; costs nothing|
| `VerdictCritic` | P(yes) / (P(yes) + P(no)) when a model is shown question, pictures and candidate                 |

A verdict may come from the model that answered (self-critique) or from another one of the family. Any object with
`score` is a critic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from internvl_lab.errors import SampleError
from internvl_lab.inference.generation import Generator
from internvl_lab.inference.processor import Processor
from internvl_lab.inference.test_time.problem import Problem
from internvl_lab.inference.test_time.samples import Sample, forward_flops
from internvl_lab.text.template import Turn

VERDICTS = ("Yes", "No")
"""What a critic may say; the first means right."""
QUESTION = "\nProposed answer:\n{}\nIs the proposed answer correct? Answer Yes or No."
UNDECIDED = 0.5


@dataclass(frozen=True)
class Scores:
    """Hold the scores of one problem's candidates and what they cost."""

    scores: tuple[float, ...]
    flops: float = 0.0


class Critic(Protocol):
    """Score candidates; see the module for the two that come with the project."""

    def score(self, problem: Problem, candidates: Sequence[Sample]) -> Scores:
        """Return one score in [0, 1] a candidate."""
        ...


class LogprobCritic:
    """Trust the answers that their own model found likely, token by token."""

    def score(self, problem: Problem, candidates: Sequence[Sample]) -> Scores:
        """Return exp(mean log-probability) of each candidate."""
        del problem
        return Scores(tuple(math.exp(candidate.mean_logprob) for candidate in candidates))


@dataclass
class VerdictCritic:
    """Let a model say of each candidate whether it is right; candidates with the same text are read once."""

    generator: Generator
    processor: Processor

    def score(self, problem: Problem, candidates: Sequence[Sample]) -> Scores:
        """Return P(yes) against P(no) of each candidate; UNDECIDED for one that cannot be put into a prompt.

        Raises:
            SampleError: the problem itself cannot be asked.
        """
        images = problem.load_images()
        self.processor(problem.turns, images, problem.is_video, problem.key)
        known = {text: self._judge(problem, images, text) for text in {candidate.text for candidate in candidates}}
        scores = tuple(known[candidate.text][0] for candidate in candidates)
        return Scores(scores, sum(flops for _, flops in known.values()))

    def _judge(self, problem: Problem, images: Sequence[Image.Image], text: str) -> tuple[float, float]:
        """Compare the probabilities of both verdicts on one candidate: (score, operations)."""
        last = problem.turns[-1]
        turns = [*problem.turns[:-1], Turn(last.role, last.text + QUESTION.format(text))]
        try:
            prompt = self.processor(turns, images, problem.is_video, f"{problem.key}/verdict")
        except SampleError:
            return UNDECIDED, 0.0  # the candidate holds one of the template's own tokens; the problem is fine
        # sums, not means: a verdict of two tokens is not as likely as each of them
        yes, no = self.generator.score(prompt, VERDICTS, mean=False)
        flops = len(VERDICTS) * forward_flops(self.generator.model.config, len(prompt.input_ids), prompt.num_tiles)
        return 1.0 / (1.0 + math.exp(min(no - yes, 700.0))), flops
