"""Spend more computation on an answer: steps first, many samples, votes, critics; and what each of them buys."""

from internvl_lab.inference.test_time.answers import Extracted, extract, normalise
from internvl_lab.inference.test_time.critics import Critic, LogprobCritic, Scores, VerdictCritic
from internvl_lab.inference.test_time.problem import Problem
from internvl_lab.inference.test_time.report import write_report
from internvl_lab.inference.test_time.results import Result, summarise
from internvl_lab.inference.test_time.runner import Respondent, collect, judge
from internvl_lab.inference.test_time.samples import Record, Sample, SampleStore
from internvl_lab.inference.test_time.voting import best_of_n, majority, weighted

__all__ = [
    "Critic",
    "Extracted",
    "LogprobCritic",
    "Problem",
    "Record",
    "Respondent",
    "Result",
    "Sample",
    "SampleStore",
    "Scores",
    "VerdictCritic",
    "best_of_n",
    "collect",
    "extract",
    "judge",
    "majority",
    "normalise",
    "summarise",
    "weighted",
    "write_report",
]
