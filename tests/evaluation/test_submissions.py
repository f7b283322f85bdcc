"""Files for evaluation servers and for scorers that run code."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from internvl_lab.evaluation.benchmark import load_benchmarks
from internvl_lab.evaluation.items import build_items
from internvl_lab.evaluation.submissions import SUBMISSIONS, extract_code, write_sheet, write_submission

MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def line(key: str, prediction: str, **reference: Any) -> dict[str, Any]:
    return {"id": key, "question": "q", "prediction": prediction, "reference": reference}


def written(folder: Path, name: str, *lines: dict[str, Any]) -> str:
    return write_submission(folder, name, "task", lines).read_text()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("docvqa", [{"questionId": 7, "answer": "rot, ü"}, {"questionId": 8, "answer": ""}]),
        ("vqav2", [{"question_id": 7, "answer": "rot, ü"}, {"question_id": 8, "answer": ""}]),
        ("vizwiz", [{"image": "7", "answer": "rot, ü"}, {"image": "8", "answer": ""}]),
        ("mmmu", {"7": "rot, ü", "8": ""}),
    ],
)
def test_json_formats(tmp_path: Path, name: str, shown: Any) -> None:
    failed = {**line("8", ""), "error": "corrupt_image"}
    assert json.loads(written(tmp_path, name, line("7", "rot, ü"), failed)) == shown


def test_pictures_are_named_without_their_folder(tmp_path: Path) -> None:
    text = written(tmp_path, "vizwiz", line("data/vizwiz/test/VizWiz_test_00000000.jpg", "can"))
    assert json.loads(text) == [{"image": "VizWiz_test_00000000.jpg", "answer": "can"}]


def test_choices_become_letters(tmp_path: Path) -> None:
    options = {"A": "cat", "B": "dog"}
    lines = [line("x", "B. dog", options=options), line("y", "a dog", options=options), line("z", "3.5 m")]
    assert json.loads(written(tmp_path, "mmmu", *lines)) == {"x": "B", "y": "B", "z": "3.5 m"}


def cells(data: bytes) -> list[list[str]]:
    """Read a sheet's cells as text."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        root = ElementTree.fromstring(archive.read("xl/worksheets/sheet1.xml"))
        for name in archive.namelist():
            ElementTree.fromstring(archive.read(name))
    return [["".join(cell.itertext()) for cell in row] for row in root.iter(f"{MAIN}row")]


def test_mmbench_is_a_sheet(tmp_path: Path) -> None:
    options = {"A": "1 < 2 & 3", "B": "dog\nor cat"}
    lines = [line("241", "A", index="241", question="Which?", options=options)]
    lines.append(line("1000241", "nothing", index="1000241", question="Welche\x07?", options={"A": "x"}))
    path = write_submission(tmp_path, "mmbench", "mmbench_en", lines)
    again = write_submission(tmp_path, "mmbench", "again", lines)
    assert path.name == "mmbench_en.xlsx" and path.read_bytes() == again.read_bytes()
    assert cells(path.read_bytes()) == [
        ["index", "question", "A", "B", "prediction"],
        ["241", "Which?", "1 < 2 & 3", "dog\nor cat", "A"],
        ["1000241", "Welche?", "x", "", "nothing"],
    ]


def test_numbers_stay_numbers() -> None:
    root = ElementTree.fromstring(zipfile.ZipFile(io.BytesIO(write_sheet([[1, "1"]]))).read("xl/worksheets/sheet1.xml"))
    assert [cell.get("t") for cell in root.iter(f"{MAIN}c")] == [None, "inlineStr"]


def test_code_is_taken_out_and_not_run(tmp_path: Path) -> None:
    answer = "Sure:\n```python\ndef f():\n    return 1\n```\nand\n```\nx\n```"
    assert extract_code(answer) == "def f():\n    return 1\n"
    assert extract_code("\n    return 1") == "    return 1"
    (row,) = written(tmp_path, "humaneval", line("HumanEval/0", answer)).splitlines()
    assert json.loads(row) == {"task_id": "HumanEval/0", "completion": "def f():\n    return 1\n"}
    assert json.loads(written(tmp_path, "mbpp", line("11", "x"))) == {"task_id": "Mbpp/11", "solution": "x"}


def test_benchmarks_name_known_formats() -> None:
    used = {benchmark.submission for benchmark in load_benchmarks().values() if benchmark.submission}
    assert used == set(SUBMISSIONS)


def test_code_benchmarks_are_asked(tmp_path: Path) -> None:
    benchmarks = load_benchmarks()
    prompt = 'def f(x: dict) -> int:\n    """Return {x}."""\n'
    (tmp_path / "humaneval").mkdir()
    row = {"task_id": "HumanEval/0", "prompt": prompt, "canonical_solution": "    return 1", "test": "t" * 300}
    (tmp_path / "humaneval" / "human-eval-v2-20210705.jsonl").write_text(json.dumps(row))
    (item,) = build_items(benchmarks["humaneval"], tmp_path)
    assert item.key == "HumanEval/0" and item.question == "Complete the following python code:\n" + prompt.strip()
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    (tmp_path / "mbpp").mkdir()
    tests = ["assert f(1) == 1", "assert f(2) == 2"]
    table = pa.Table.from_pylist([{"task_id": 11, "text": "Write f.", "code": "def f", "test_list": tests}])
    pq.write_table(table, tmp_path / "mbpp" / "test-0.parquet")
    (item,) = build_items(benchmarks["mbpp"], tmp_path)
    assert item.key == "11" and item.question.endswith("pass these tests:\n\nassert f(1) == 1\nassert f(2) == 2")
