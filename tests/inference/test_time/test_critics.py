from __future__ import annotations

import math

import pytest

from internvl_lab.inference import Processor
from internvl_lab.inference.test_time import LogprobCritic, Problem, Respondent, Sample, VerdictCritic
from internvl_lab.inference.test_time.critics import QUESTION, UNDECIDED
from internvl_lab.text import Turn


def candidate(text: str, mean_logprob: float = -1.0) -> Sample:
    return Sample(text, text, "text", True, 3, mean_logprob, True, False, 1.0)


def test_likely_answers_score_high(problems: list[Problem]) -> None:
    found = LogprobCritic().score(problems[0], [candidate("a", -0.1), candidate("b", -2.0)])
    assert found.scores == (math.exp(-0.1), math.exp(-2.0)) and found.flops == 0


def test_a_verdict_is_yes_against_no(respondent: Respondent, processor: Processor, problems: list[Problem]) -> None:
    problem, generator = problems[0], respondent.generator
    found = VerdictCritic(*respondent).score(problem, [candidate("red"), candidate("blue"), candidate("red")])
    text = problem.question + QUESTION.format("blue")
    prompt = processor([Turn("human", text)], problem.load_images(), key="k")
    yes, no = (math.exp(value) for value in generator.score(prompt, ["Yes", "No"], mean=False))
    assert found.scores[1] == pytest.approx(yes / (yes + no), abs=1e-6)
    assert found.scores[0] == found.scores[2] != found.scores[1]
    one = VerdictCritic(*respondent).score(problem, [candidate("red")])
    assert one.flops < found.flops < 3 * one.flops, "equal candidates are read once"


def test_a_candidate_that_no_prompt_can_hold_is_undecided(respondent: Respondent, problems: list[Problem]) -> None:
    found = VerdictCritic(*respondent).score(problems[0], [candidate("<image>"), candidate("<|im_end|>")])
    assert found.scores == (UNDECIDED, UNDECIDED)
