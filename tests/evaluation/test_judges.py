"""The judge's input file, and reading its scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from internvl_lab.errors import ConfigError
from internvl_lab.evaluation.judges import read_judge_answers, write_judge_file
from internvl_lab.evaluation.suites import Suite

SUITE = Suite("another", "Another", "ocr", "judged", (), 9, settings=(("judge_metric", "0..1"),))
LINES = [
    {"id": "1", "question": "What?", "prediction": "a cat", "reference": {"answer": ["cat", "kitten"]}},
    {"id": "2", "question": "Who?", "prediction": "", "reference": {}, "error": "corrupt_image"},
]


def test_line_breaks_of_unicode_end_no_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"task": "t", "id": "a\u2028b", "score": 1, "reply": "x\x85y"}\n')
    assert read_judge_answers(tmp_path / "a.jsonl") == {"t": {"a\u2028b": 1.0}}


def test_what_the_judge_reads(tmp_path: Path) -> None:
    path = write_judge_file(tmp_path / "judge" / "mmvet.jsonl", SUITE, LINES)
    (row,) = map(json.loads, path.read_text().splitlines())
    assert (row["task"], row["id"], row["scale"], row["reference"]) == ("another", "1", "0..1", ["cat", "kitten"])
    assert "Question: What?\nReference: cat; kitten\nAnswer: a cat" in row["prompt"]


def test_scores_come_back(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"task": "mmvet", "id": 1, "score": "0.5"}\n\n{"task": "mmhal", "id": "1", "score": 3}\n')
    assert read_judge_answers(path) == {"mmvet": {"1": 0.5}, "mmhal": {"1": 3.0}}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"task": "t", "id": 1}',
        '{"task": "t", "id": 1, "score": "good"}',
        "[]",
        '{"task": "t", "id": 1, "score": NaN}',
    ],
)
def test_other_lines_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(ConfigError, match=r"a\.jsonl, line 1"):
        read_judge_answers(tmp_path / "a.jsonl")
    with pytest.raises(ConfigError, match="does not exist"):
        read_judge_answers(tmp_path / "b.jsonl")
