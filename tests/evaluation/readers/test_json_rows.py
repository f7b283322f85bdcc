"""JSON and JSONL in the shapes that benchmarks use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from internvl_lab.errors import ConfigError
from internvl_lab.evaluation.readers.json_rows import read_json_rows


@pytest.mark.parametrize(
    "content",
    [
        [{"question": "a"}, {"question": "b"}],
        {"data": [{"question": "a"}, {"question": "b"}]},
        {"annotations": [{"question": "a"}, {"question": "b"}], "info": 1},
        {"7": {"question": "a"}, "8": {"question": "b"}},
    ],
)
def test_json(tmp_path: Path, content: Any) -> None:
    (tmp_path / "t.json").write_text(json.dumps(content))
    assert [row.fields["question"] for row in read_json_rows(tmp_path / "t.json", tmp_path)] == ["a", "b"]


def test_jsonl_with_images(tmp_path: Path) -> None:
    (tmp_path / "chartqa").mkdir()
    for name in "ab":
        (tmp_path / "chartqa" / f"{name}.png").write_bytes(name.encode())
    lines = [
        {"image": "data/chartqa/a.png", "question": "?", "question_id": 5},
        {"images": ["a.png", "b.png"], "question": "??"},
        {"question": "text"},
        {"input": {"input_image_path": ["a.png"], "question": "nested"}, "task": "t"},
    ]
    path = tmp_path / "chartqa" / "t.jsonl"
    path.write_text("".join(json.dumps(line) + "\n\n" for line in lines))
    rows = list(read_json_rows(path, tmp_path))
    assert [row.load_images() for row in rows] == [[b"a"], [b"a", b"b"], [], [b"a"]]
    assert rows[3].fields["question"] == "nested" and rows[1].fields["index"] == "1"


def test_line_breaks_of_unicode_end_no_line(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"question": "a\u2028b\x85c"}\r\n{"question": "d"}', encoding="utf-8")
    assert [row.fields["question"] for row in read_json_rows(tmp_path / "t.jsonl", tmp_path)] == ["a\u2028b\x85c", "d"]


@pytest.mark.parametrize("text", ["{", "[1, 2]", '"text"', '{"a": 1}\n'])
def test_broken_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text)
    if text.startswith('{"a"'):
        assert list(read_json_rows(tmp_path / "t.json", tmp_path)) == []
        return
    with pytest.raises(ConfigError, match=r"t\.json"):
        list(read_json_rows(tmp_path / "t.json", tmp_path))
