"""One benchmark of each family goes from a file in its own format to a score."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from internvl_lab.config import TilingConfig
from internvl_lab.evaluation.answer_log import AnswerLog
from internvl_lab.evaluation.answering import Answerer
from internvl_lab.evaluation.benchmark import load_benchmarks
from internvl_lab.evaluation.items import build_items
from internvl_lab.evaluation.scoring import Score, score_suite
from internvl_lab.evaluation.suites import Suite
from internvl_lab.inference import Generator
from internvl_lab.models import InternVL
from internvl_lab.text import ChatTemplate


def png(level: int = 100) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), (level, level, level)).save(buffer, "PNG")
    return buffer.getvalue()


def tsv(path: str, *rows: dict[str, str]) -> Callable[[Path], None]:
    """Write VLMEvalKit's format; every row gets a picture, the second one that of the first by its index."""

    def write(data: Path) -> None:
        shown = [
            {"index": str(i), "image": base64.b64encode(png(i)).decode() if i != 1 else "0", **row}
            for i, row in enumerate(rows)
        ]
        columns = list(dict.fromkeys(name for row in shown for name in row))
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        with (data / path).open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, columns, delimiter="\t", lineterminator="\n")
            writer.writeheader()
            writer.writerows(shown)

    return write


def jsonl(path: str, *rows: dict[str, Any], image: str = "x.png") -> Callable[[Path], None]:
    """Write the authors' format and the picture it names."""

    def write(data: Path) -> None:
        file = data / path
        file.parent.mkdir(parents=True, exist_ok=True)
        (file.parent / image).write_bytes(png())
        named = [{"image": f"data/{file.parent.name}/{image}", **row} for row in rows]
        text = json.dumps(named) if file.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in named)
        file.write_text(text)

    return write


def parquet(path: str, *rows: dict[str, Any]) -> Callable[[Path], None]:
    """Write the hub's format."""

    def write(data: Path) -> None:
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        (data / path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(list(rows)), data / path)

    return write


def video(path: str, folder: str, *rows: dict[str, Any]) -> Callable[[Path], None]:
    """Write a JSON list of questions and, for each video, a folder of two frames."""

    def write(data: Path) -> None:
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        (data / path).write_text(json.dumps(rows))
        for row in rows:
            frames = data / folder / row["video"]
            frames.mkdir(parents=True, exist_ok=True)
            for i in (1, 2):
                (frames / f"{i:05d}.png").write_bytes(png(i))

    return write


def raw(path: str, content: Any) -> Callable[[Path], None]:
    """Write a JSON file."""

    def write(data: Path) -> None:
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        (data / path).write_text(json.dumps(content))

    return write


def both(*writers: Callable[[Path], None]) -> Callable[[Path], None]:
    """Write several files."""

    def write(data: Path) -> None:
        for writer in writers:
            writer(data)

    return write


IMAGE = {"bytes": png(), "path": "1.png"}
AB = {"A": "x", "B": "y"}
OCR_TYPE = "Doc-oriented VQA"
VQA_ANSWERS = {"annotations": [{"question_id": i, "answers": [{"answer": "red"}] * 10} for i in (1, 2)]}
THEOREMS = [(3, "integer"), (0.51, "float"), (True, "bool")]
HALLUSION = {"l2-category": "chart", "category": "VD", "set_id": "0", "question_id": "0"}


def choices_in(file: str, **more: str) -> Callable[[Path], None]:
    rows = [{"question": q, "answer": a, **AB, **more} for q, a in (("?", "A"), ("!", "B"))]
    return tsv(file, *rows)


FAMILIES: dict[str, tuple[Callable[[Path], None], list[str], float]] = {
    "mmstar": (choices_in("MMStar.tsv"), ["A", "A"], 50.0),
    "mmbench_en_dev": (
        tsv(
            "MMBench_DEV_EN.tsv",
            *({"index": str(i), "question": "?", "answer": "A", "image": "", **AB} for i in (7, 1_000_007, 8)),
        ),
        ["A", "B", "A"],
        50.0,
    ),
    "ocrbench": (
        tsv("OCRBench.tsv", *({"question": "?", "answer": "['stop']", "category": OCR_TYPE} for _ in range(2))),
        ["It says STOP.", "go"],
        500.0,
    ),
    "mathvista": (
        tsv(
            "MathVista_MINI.tsv",
            {"question": "Which?", "answer": "y", "choices": "['x', 'y']", "question_type": "multi_choice"},
            {"question": "How many?", "answer": "7", "question_type": "free_form", "answer_type": "integer"},
        ),
        ["(B)", "It is 7."],
        100.0,
    ),
    "mme": (
        tsv("MME.tsv", *({"question": "?", "answer": a, "category": "OCR", "image_path": "1"} for a in ("Yes", "No"))),
        ["Yes", "Yes"],
        50.0,
    ),
    "pope": (
        tsv("POPE.tsv", *({"question": "?", "answer": a, "category": "random"} for a in ("Yes", "No"))),
        ["Yes", "No"],
        100.0,
    ),
    "hallusionbench": (
        tsv(
            "HallusionBench.tsv",
            *({"question": "?", "answer": "Yes", "figure_id": str(i), **HALLUSION} for i in (0, 1)),
        ),
        ["yes", "no"],
        100 * (0.5 + 0.5 + 0) / 3,
    ),
    "vcr_en_easy": (
        tsv("VCR_EN_EASY_ALL.tsv", {"question": "?", "answer": "['red fox', 'two']"}),
        ["a red fox"],
        50.0,
    ),
    "mtvqa": (tsv("MTVQA_TEST.tsv", {"question": "?", "answer": "Eis"}), ["Das Eis."], 100.0),
    "chartqa": (
        both(
            jsonl("chartqa/test_human.jsonl", {"question": "?", "question_id": 1, "answer": "100"}),
            jsonl("chartqa/test_augmented.jsonl", {"question": "?", "question_id": 1, "answer": "7"}),
        ),
        ["96", "8"],
        50.0,
    ),
    "docvqa_val": (
        both(
            jsonl("docvqa/val.jsonl", {"question": "?", "question_id": 1}),
            raw("docvqa/val/val_v1.0.json", {"data": [{"questionId": 1, "answers": ["hello"]}]}),
        ),
        ["Hallo"],
        80.0,
    ),
    "textvqa": (
        both(
            jsonl("textvqa/textvqa_val.jsonl", *({"question": "?", "question_id": i} for i in (1, 2))),
            raw("textvqa/textvqa_val_annotations.json", VQA_ANSWERS),
        ),
        ["Red.", "blue"],
        50.0,
    ),
    "gqa": (
        jsonl("gqa/llava_gqa_testdev_balanced_qwen_format.jsonl", {"question": "?", "question_id": 1, "answer": "yes"}),
        ["Yes."],
        100.0,
    ),
    "ai2d_mask": (
        jsonl("ai2diagram/test_vlmevalkit.jsonl", {"question": "?", "question_id": "q", "answer": "B"}),
        ["b"],
        100.0,
    ),
    "refcoco_val": (
        jsonl("refcoco/refcoco_val.jsonl", {"sent": "dog", "bbox": [0, 0, 20, 40], "width": 40, "height": 40}),
        ["<ref>dog</ref><box>[[0, 0, 500, 900]]</box>"],
        100.0,
    ),
    "mmiu": (
        jsonl(
            "mmiu/mmiu.jsonl",
            {
                "task": "t",
                "options": "A: x\nB: y",
                "input": {"question": "?", "context": "A: x\nB: y", "input_image_path": ["x.png"]},
                "output": {"output_text": "B"},
            },
        ),
        ["B"],
        100.0,
    ),
    "mirb": (
        both(
            *(jsonl(path, {"questions": "Which?", "answers": "A"}) for path in load_benchmarks()["mirb"].files[:2]),
            *(raw(path, []) for path in load_benchmarks()["mirb"].files[2:]),
        ),
        ["a", "B"],
        50.0,
    ),
    "mmmu_val": (
        parquet(
            "MMMU/Art/validation-0.parquet",
            {
                "id": "1",
                "question": "<image 1> ?",
                "options": "['x', 'y']",
                "answer": "B",
                "question_type": "multiple-choice",
                "image_1": IMAGE,
                "image_2": None,
            },
            {
                "id": "2",
                "question": "How many?",
                "options": "[]",
                "answer": "3.5",
                "question_type": "open",
                "image_1": IMAGE,
                "image_2": IMAGE,
            },
        ),
        ["(B)", "about 3.5"],
        100.0,
    ),
    "mantis": (
        parquet(
            "Mantis-Eval/test.parquet",
            {
                "id": "1",
                "question": "<image> <image> ?",
                "options": ["(A) x", "(B) y"],
                "answer": "B",
                "images": [IMAGE] * 2,
            },
            {"id": "2", "question": "?", "options": [], "answer": "Yes", "images": [IMAGE]},
        ),
        ["B", "no"],
        50.0,
    ),
    "mmlu": (parquet("mmlu/all/test-0.parquet", {"question": "?", "choices": ["x", "y"], "answer": 1}), ["B"], 100.0),
    "gsm8k": (parquet("gsm8k/main/test-0.parquet", {"question": "?", "answer": "x\n#### 18"}), ["So it is 18."], 100.0),
    "math": (
        parquet("math/test-0.parquet", {"problem": "?", "solution": "Thus $\\boxed{x+1}$."}),
        ["Answer: \\boxed{x+1}"],
        100.0,
    ),
    "bbh": (parquet("bbh/t/test-0.parquet", {"input": "?", "target": "True"}), ["True"], 100.0),
    "theoremqa": (
        raw("TheoremQA/theoremqa_test.json", [{"Question": "?", "Answer": a, "Answer_type": t} for a, t in THEOREMS]),
        ["So 3. The answer is 3.01.", "The answer is \\frac{1}{2}", "Yes, it is."],
        100.0,
    ),
    "mvbench": (
        video(
            "MVBench/json/action_count.json",
            "MVBench/video/action_count",
            {"video": "v", "question": "?", "candidates": ["1", "2"], "answer": "2"},
        ),
        ["(B) 2"],
        100.0,
    ),
    "longvideobench": (
        both(
            video("other.json", "LongVideoBench/videos", {"video": "v"}),
            raw(
                "LongVideoBench/lvb_val.json",
                [{"id": "1", "video_path": "v", "question": "?", "candidates": ["x", "y"], "correct_choice": 1}],
            ),
        ),
        ["B"],
        100.0,
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_from_file_to_score(
    name: str,
    tmp_path: Path,
    model: InternVL,
    template: ChatTemplate,
    tiling: TilingConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write, answers, shown = FAMILIES[name]
    data = tmp_path / "data"
    data.mkdir()
    write(data)
    score = evaluate(name, data, answers, model, template, tiling, monkeypatch)
    assert (score.n, score.num_skipped, score.num_unscored) == (len(answers), 0, 0)
    assert score.shown == pytest.approx(shown)


def evaluate(
    name: str,
    data: Path,
    answers: list[str],
    model: InternVL,
    template: ChatTemplate,
    tiling: TilingConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> Score:
    """Run one benchmark with a generator that gives these answers in order."""
    benchmark = load_benchmarks()[name]
    items = tuple(build_items(benchmark, data))
    by_key = dict(zip([item.key for item in items], answers, strict=True))
    monkeypatch.setattr(Generator, "generate", lambda self, prompts, blind=False: [by_key[p.key] for p in prompts])
    suite = Suite(name, benchmark.title, benchmark.capability, benchmark.metric, items, 4, 1, benchmark.tiles)
    answerer = Answerer(model, template, tiling, batch_size=2)
    log = AnswerLog(data / "predictions", name, answerer.settings(suite), answerer.chunk_size)
    answerer.run(suite, log)
    return score_suite(suite, log.lines, log.settings)
