"""Tables in the report's layout, ours beside the published rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from internvl_lab.evaluation.benchmark_report import (
    capability_tables,
    published_scores,
    render_benchmark_report,
    show_figure,
    write_benchmark_report,
)
from internvl_lab.evaluation.scoring import Score
from internvl_lab.evaluation.suites import Suite


def score(name: str, capability: str, share: float | None, note: str = "", **more: object) -> Score:
    metric = str(more.pop("metric", "multiple_choice"))
    suite = Suite(name, name.upper(), capability, metric, (), 4, 6, published=name, note=note)
    settings = {"benchmark": {"prompt": "{question} | x"}, "max_tiles": 6, "tiles": "each", "max_new_tokens": 4}
    scores = {} if share is None else {metric: share}
    return Score(suite, scores, {}, 7, 1, 0, 0.25, (("q1", "corrupt_image"),), settings)


SCORES = [
    score("mmstar", "comprehensive", 0.5),
    score("chartqa", "ocr", 0.25, "a note"),
    score("docvqa", "ocr", None),
]


def test_published_rows() -> None:
    published = published_scores()
    assert published["mmmu_val"] == {
        "1B": "40.9", "2B": "43.6", "4B": "52.3", "8B": "56.0", "26B": "60.0", "38B": "63.9", "78B": "70.1"
    }  # fmt: skip
    assert published["mme"]["78B"] == "2494.5" and published["refcoco_testa"] == {"8B": "94.5", "78B": "95.6"}


def test_models_are_rows_and_benchmarks_columns() -> None:
    ocr, comprehensive = capability_tables(SCORES, "mine")
    assert (ocr.name, ocr.columns) == ("ocr", ("CHARTQA", "DOCVQA"))
    assert ocr.rows[0] == ("mine", "this run", "25.0", "-")
    assert ocr.rows[1] == ("InternVL2.5-1B", "published", "75.9", "84.8") and len(ocr.rows) == 8
    assert comprehensive.rows[-1] == ("InternVL2.5-78B", "published", "69.5")


def test_sets_without_published_figures_have_our_row_alone() -> None:
    (table,) = capability_tables([score("counting", "miniworld", 0.5)], "mine")
    assert table.rows == (("mine", "this run", "50.0"),)
    assert show_figure(None) == "-"


def test_files(tmp_path: Path) -> None:
    paths = write_benchmark_report(tmp_path, SCORES, {"weights": "abc", "versions": {"torch": "2"}}, "mine", 3)
    report = paths["report"].read_text()
    for part in ("| mine | this run | 25.0 | - |", "CHARTQA: a note", "corrupt_image", "weights: `abc`", "25.0 %"):
        assert part in report
    assert "{question} \\| x" in report and "6 each" in report
    with paths["table ocr"].open() as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["model", "source", "CHARTQA", "DOCVQA"] and rows[1] == ["mine", "this run", "25.0", "-"]
    metrics = json.loads(paths["metrics"].read_text())
    assert metrics["overall"]["score"] == 0.375 and metrics["seed"] == 3
    assert report == render_benchmark_report(
        capability_tables(SCORES, "mine"), SCORES, {"weights": "abc", "versions": {"torch": "2"}}, "mine"
    )
