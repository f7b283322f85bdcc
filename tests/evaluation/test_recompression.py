"""Scores on recompressed pictures, beside those on the pictures as they are."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from internvl_lab.config import EvaluationConfig, TilingConfig
from internvl_lab.evaluation import EvaluationResult, TaskResult, evaluate
from internvl_lab.evaluation.recompression import recompressed, through_jpeg
from internvl_lab.evaluation.report import render_report
from internvl_lab.evaluation.table import score_table
from internvl_lab.evaluation.tasks import read_tasks
from internvl_lab.models import InternVL
from internvl_lab.text import ChatTemplate

CFG = EvaluationConfig(tasks=("attribute",), batch_size=2, max_new_tokens=4, blind=False, samples_per_task=2)


def difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).mean())


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (45, 61, 3), np.uint8))


def test_a_lower_quality_changes_a_picture_more() -> None:
    image = noise()
    losses = [difference(image, through_jpeg(image, quality)) for quality in (95, 30, 5)]
    assert 0 < losses[0] < losses[1] < losses[2]
    assert through_jpeg(image.convert("L"), 30).mode == "RGB"
    assert through_jpeg(image, 30).size == image.size


def test_it_is_what_pillow_writes() -> None:
    buffer = io.BytesIO()
    noise().save(buffer, "JPEG", quality=30)
    assert difference(through_jpeg(noise(), 30), Image.open(buffer)) == 0


def test_a_task_s_pictures_are_read_through_jpeg(template: ChatTemplate, val_dir: Path) -> None:
    task = read_tasks(val_dir, template, ("attribute",))[0][0]
    again = recompressed(task, 30)
    for before, after in zip(task.questions, again.questions, strict=True):
        assert (after.key, after.turns, after.reference) == (before.key, before.turns, before.reference)
        assert after.load_images() == [through_jpeg(image, 30) for image in before.load_images()]
        assert after.load_images() != before.load_images()


def test_evaluate_shows_the_model_recompressed_pictures(
    model: InternVL, template: ChatTemplate, tiling: TilingConfig, val_dir: Path
) -> None:
    clean = evaluate(model, template, tiling, val_dir, CFG)
    jpeg = evaluate(model, template, tiling, val_dir, replace(CFG, jpeg_quality=1))
    assert "jpeg_quality" not in clean.settings and jpeg.settings["jpeg_quality"] == 1
    assert [p.prediction for p in clean.tasks[0].predictions] != [p.prediction for p in jpeg.tasks[0].predictions]


def test_both_scores_stand_in_metrics_table_and_report() -> None:
    tasks = (TaskResult("ocr", "exact_match", ()),)
    result = EvaluationResult(tasks, recompressed=EvaluationResult(tasks, {"jpeg_quality": 30}))
    found = result.metrics()["recompressed"]
    assert (found["quality"], found["tasks"]["ocr"]["score"], found["overall"]["n"]) == (30, 0.0, 0)
    assert "recompressed" not in EvaluationResult(tasks).metrics()
    assert score_table(result).row_count == score_table(EvaluationResult(tasks)).row_count + 1
    report = render_report("t", result, {}, {})
    assert "recompressed at JPEG quality 30" in report and "| ocr | 0.000 | 0.000 | +0.000 |" in report
