"""Rows become prompts and references."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from internvl_lab.errors import ConfigError, SampleError
from internvl_lab.evaluation.benchmark import parse_benchmark
from internvl_lab.evaluation.items import (
    CHOOSE,
    CHOOSE_ZH,
    SHORT,
    build_items,
    build_reference,
    fill_prompt,
    read_options,
)

CHOICE = "{hint}{question}\n{options}\n{choose}"


def benchmark(**more: Any) -> Any:
    values = {"title": "T", "capability": "ocr", "metric": "multiple_choice", "files": "t.jsonl", "download": "get t"}
    return parse_benchmark("t", {**values, **more})


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"A": "x", "B": "y"}, {"A": "x", "B": "y"}),
        ({"options": ["A. x", "B. y"]}, {"A": "x", "B": "y"}),
        ({"options": ["(A) x", "(B) y"]}, {"A": "x", "B": "y"}),
        ({"options": "A: x\nB: y\n"}, {"A": "x", "B": "y"}),
        ({"options": "['x', 'y']"}, {"A": "x", "B": "y"}),
        ({"options": {"text": ["x", "y"], "label": ["A", "B"]}}, {"A": "x", "B": "y"}),
        ({"candidates": ["A. x", "y"]}, {"A": "A. x", "B": "y"}),  # labels only where all have one
        ({"question": "?"}, {}),
    ],
)
def test_read_options(fields: dict[str, Any], options: dict[str, str]) -> None:
    assert read_options(fields) == options


def test_prompts() -> None:
    fields = {"question": "Which one?", "hint": "Look."}
    assert (
        fill_prompt(benchmark(prompt=CHOICE), fields, {"A": "x", "B": "y"})
        == f"Look.\nWhich one?\nA. x\nB. y\n{CHOOSE}"
    )
    assert fill_prompt(benchmark(prompt=CHOICE), {"question": "哪个"}, {"A": "x"}).endswith(CHOOSE_ZH)
    short = benchmark(prompt=CHOICE, open_prompt="{question} {short}")
    assert fill_prompt(short, {"question": "How many?"}, {}) == f"How many? {SHORT}"
    assert fill_prompt(benchmark(), {"question": "<image><image>\nIn <image> or <image>, {x}?"}, {}) == (
        "In Image-1 or Image-2, {x}?"
    )
    with pytest.raises(ConfigError, match="names 'context'"):
        fill_prompt(benchmark(prompt="{context}"), {"question": "?"}, {})


@pytest.mark.parametrize(
    ("fields", "options", "more", "answer"),
    [
        ({"answer": "B"}, {"A": "x", "B": "y"}, {}, "B"),
        ({"answer": 1}, {"A": "x", "B": "y"}, {}, "B"),
        ({"answer": "1"}, {"A": "x", "B": "y"}, {"first_index": 1}, "A"),
        ({"answer": "1"}, {"A": "1", "B": "2"}, {}, "1"),  # an option's text, not a number of one
        ({"answer": 7}, {}, {}, "7"),
        ({"answers": "['a', 'b']"}, {}, {}, ["a", "b"]),
        ({"answers": [{"answer": "a"}, {"answer": "b"}]}, {}, {}, ["a", "b"]),
        ({"answer": "5 + 5 = 10\n#### 10"}, {}, {"answer_pattern": "#### (.+)"}, "10"),
    ],
)
def test_references(fields: dict[str, Any], options: dict[str, str], more: dict[str, Any], answer: Any) -> None:
    reference = build_reference(benchmark(**more), {"category": "c", "text": "x" * 999, **fields}, options)
    assert reference == {"category": "c", "answer": answer, **({"options": options} if options else {})}


def write(folder: Path, rows: list[dict[str, Any]], name: str = "t.jsonl") -> None:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_items_of_a_file(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    rows = [
        {"qid": 5, "image": "a.png", "query": "<image>\nWhat?", "answer": "x", "split": "val"},
        {"qid": 5, "image": "b.png", "query": "Who?", "answer": "y", "split": "val"},
        {"qid": 6, "query": "Test?", "split": "test"},
    ]
    write(tmp_path, rows)
    fields = {"id": "qid", "question": "query"}
    first, second = build_items(benchmark(fields=fields, where={"split": "val"}, upscale_first=True), tmp_path)
    assert (first.key, second.key, first.question) == ("5", "5#2", "What?")
    (image,) = first.load_images()
    assert image.size == (6, 4)
    assert first.prompt(1)[0].text == "<image>\nWhat?" and first.prompt(2)[0].text.startswith("Image-1: <image>\n")
    with pytest.raises(SampleError, match="missing_file"):
        second.load_images()
    assert len(build_items(benchmark(fields=fields), tmp_path, limit=1)) == 1


def test_an_empty_question_is_left_to_be_skipped(tmp_path: Path) -> None:
    """Its suffix alone would be asked; TSV files have no field at all for an empty cell."""
    write(tmp_path, [{"question": "What?"}, {"question": " "}, {"question": None}, {"other": "x"}])
    items = build_items(benchmark(prompt="{question} {short}"), tmp_path)
    assert [item.question for item in items] == [f"What? {SHORT}", "", "", ""]
    in_picture = benchmark(prompt="{question} {short}", constants={"question": ""})  # as MMMU-Pro's vision set
    assert {item.question for item in build_items(in_picture, tmp_path)} == {SHORT}


def test_answers_may_lie_apart(tmp_path: Path) -> None:
    write(tmp_path, [{"question": "?", "question_id": 3}])
    (tmp_path / "a.json").write_text(json.dumps({"data": [{"questionId": 3, "answers": ["x", "y"]}]}))
    (item,) = build_items(benchmark(answers="a.json", metric="anls"), tmp_path)
    assert item.reference["answer"] == ["x", "y"]


def test_faults_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"t: .*t\.jsonl is missing: get t, put it there"):
        build_items(benchmark(), tmp_path)
    write(tmp_path, [{"text": "no question"}])
    with pytest.raises(ConfigError, match=r"no row has a question; .* text"):
        build_items(benchmark(), tmp_path)
    with pytest.raises(ConfigError, match="no question is left"):
        build_items(benchmark(where={"split": "val"}), tmp_path)
    with pytest.raises(ConfigError, match=r"a\.json is missing"):
        build_items(benchmark(answers="a.json"), tmp_path)


def test_a_video_needs_its_name(tmp_path: Path) -> None:
    (tmp_path / "v" / "clip").mkdir(parents=True)
    Image.new("RGB", (3, 2)).save(tmp_path / "v" / "clip" / "1.png")
    write(tmp_path, [{"question": "?", "video": "clip"}, {"question": "?"}])
    first, second = build_items(benchmark(num_frames=4, videos="v"), tmp_path)
    assert first.is_video and len(first.load_images()) == 1
    with pytest.raises(SampleError, match="names no video"):
        second.load_images()
