"""MIRB by hand: three rules, four groups."""

from __future__ import annotations

import pytest

from internvl_lab.evaluation.benchmark import load_benchmarks
from internvl_lab.evaluation.metrics import mirb
from internvl_lab.evaluation.metrics.mirb import GROUPS, is_mirb


@pytest.mark.parametrize(
    ("task", "answer", "prediction", "right"),
    [
        ("analogy", "Yes", "Yes, they are.", True),
        ("analogy", "no", "I think not", True),  # whatever does not say yes
        ("analogy", "no", "Eyes are shown", False),  # a yes inside a word counts
        ("attribute", "yes", "No.\nYes", False),
        ("attribute", "maybe", "maybe", False),
        ("sightseeing", "Paris", "It is in paris. Or Rome", True),
        ("sightseeing", "Rome", "It is in paris. Or Rome", False),
        ("sightseeing", "No", "no", True),
        ("count", "3", "There are 3 of 5", True),
        ("count", "3", "Three", True),
        ("count", "3", "three dogs", False),  # words only alone
        ("3d_scene", "10", "tenth.", True),
        ("visual_chain", "2", "", False),
        ("image_needles", "3", "3 of 5", True),  # in no group, read as the authors read it
        ("count_concat", "maybe", "maybe", False),
        ("food", "A", "a.", True),
        ("food", "A", "A and B", False),
        ("arxiv", "A title", "A title\nbecause", True),
        ("arxiv", "v1.5", "v1.5", False),  # cut at the point, as the authors cut
        ("codeu", "B", ".B", False),
    ],
)
def test_one_answer(task: str, answer: str, prediction: str, right: bool) -> None:
    assert is_mirb(prediction, {"answer": answer, "file": task}) is right


def test_groups_are_averaged_without_weights() -> None:
    references = [{"answer": "A", "file": "food"}] * 3 + [{"answer": "x", "task": "sightseeing"}]
    references += [{"answer": "1", "file": "count"}, {"answer": "1", "file": "count_concat"}]
    scores = mirb(["A", "A", "B", "y", "1", "2"], references)
    assert scores == {"mirb": (1 / 3 + 1) / 2, "knowledge": 1 / 3, "perception": 1.0}


def test_every_task_has_its_file_and_instruction() -> None:
    benchmark = load_benchmarks()["mirb"]
    tasks = {task for members in GROUPS.values() for task in members}
    assert tasks == set(benchmark.instructions)
    assert {f"MIRB/{task}.json" for task in tasks} == set(benchmark.files)
