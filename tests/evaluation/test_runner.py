"""The runner: answers, blind answers, resuming, broken samples."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from internvl_lab.config import EvaluationConfig, TilingConfig
from internvl_lab.data import RawSample, write_shards
from internvl_lab.data.miniworld import generate
from internvl_lab.errors import SampleError
from internvl_lab.evaluation.results import Prediction, TaskResult
from internvl_lab.evaluation.runner import evaluate, pick_examples, weights_fingerprint
from internvl_lab.evaluation.tasks import Question, Task, read_tasks
from internvl_lab.inference import Generator, Processor
from internvl_lab.models import InternVL
from internvl_lab.text import ChatTemplate, Turn

CFG = EvaluationConfig(batch_size=2, max_new_tokens=6)


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the key of every prompt that is answered, with `blind:` before blind ones."""
    keys: list[str] = []
    generate_ = Generator.generate

    def recorded(self: Generator, prompts: list, blind: bool = False) -> list[str]:  # type: ignore[type-arg]
        keys.extend(("blind:" if blind else "") + p.key for p in prompts)
        return generate_(self, prompts, blind)

    monkeypatch.setattr(Generator, "generate", recorded)
    return keys


def test_answers_are_those_of_single_questions(
    model: InternVL, template: ChatTemplate, tiling: TilingConfig, val_dir: Path
) -> None:
    result = evaluate(model, template, tiling, val_dir, CFG)
    processor, generator = Processor(template, tiling), Generator(model, template, 6, 1)
    for task, scored in zip(read_tasks(val_dir, template)[0], result.tasks, strict=True):
        for question, p in zip(task.questions, scored.predictions, strict=True):
            prompt = processor(question.turns, question.load_images(), question.is_video)
            assert p.key == question.key
            assert p.prediction == generator.generate([prompt])[0]
            assert p.blind_prediction == generator.generate([prompt], blind=True)[0]
            assert p.correct == task.judge(p.prediction, question.reference)
    assert result.n == 15 and result.settings["weights"] == weights_fingerprint(model)


def test_scores_right_answers(
    model: InternVL, template: ChatTemplate, tiling: TilingConfig, val_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Generator, "generate", lambda self, prompts, blind=False: ["no" if blind else " red"] * len(prompts)
    )
    scores = {task.name: (task.score, task.blind) for task in evaluate(model, template, tiling, val_dir, CFG).tasks}
    assert scores["attribute"] == (1.0, 0.0)
    assert scores["multi_image"] == (0.0, 1.0)
    assert scores["grounding"] == scores["text_only"] == (0.0, 0.0)


def test_text_only_is_not_asked_twice(
    model: InternVL, template: ChatTemplate, tiling: TilingConfig, val_dir: Path, generated: list[str]
) -> None:
    result = evaluate(model, template, tiling, val_dir, replace(CFG, tasks=("text_only", "attribute")))
    assert sorted(generated) == sorted(["4", "9", "14", "0", "5", "10", "blind:0", "blind:5", "blind:10"])
    assert all(p.blind_prediction == p.prediction for p in result.tasks[0].predictions)
    assert result.tasks[0].blind == result.tasks[0].score


def test_without_blind_run(
    model: InternVL, template: ChatTemplate, tiling: TilingConfig, val_dir: Path, generated: list[str]
) -> None:
    result = evaluate(model, template, tiling, val_dir, replace(CFG, blind=False, samples_per_task=1))
    assert result.blind is None and result.n == 5 and len(generated) == 5


def test_answers_are_drawn_at_a_temperature(
    model: InternVL, template: ChatTemplate, tiling: TilingConfig, val_dir: Path, tmp_path: Path
) -> None:
    cfg = replace(CFG, blind=False, temperature=1.0, tasks=("attribute",))

    def answers(cfg: EvaluationConfig) -> list[str]:
        result = evaluate(model, template, tiling, val_dir, cfg, predictions_dir=tmp_path)
        return [p.prediction for p in result.tasks[0].predictions]

    drawn = answers(cfg)
    assert answers(replace(cfg, batch_size=1)) == drawn
    assert answers(replace(cfg, temperature=0.0)) != drawn  # and the drawn ones are not reused


def test_finished_tasks_are_reused(
    model: InternVL, template: ChatTemplate, tiling: TilingConfig, val_dir: Path, tmp_path: Path, generated: list[str]
) -> None:
    first = evaluate(model, template, tiling, val_dir, CFG, predictions_dir=tmp_path)
    (tmp_path / "video.jsonl").unlink()
    generated.clear()
    second = evaluate(model, template, tiling, val_dir, replace(CFG, batch_size=64), predictions_dir=tmp_path)
    assert {key.removeprefix("blind:") for key in generated} == {"3", "8", "13"}
    assert second.tasks == first.tasks and second.settings == first.settings


def test_a_killed_run_keeps_finished_tasks_only(
    model: InternVL,
    template: ChatTemplate,
    tiling: TilingConfig,
    val_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        original = Generator.generate

        def killed(self: Generator, prompts: list, blind: bool = False) -> list[str]:  # type: ignore[type-arg]
            if any(p.key == "7" for p in prompts):
                raise KeyboardInterrupt
            return original(self, prompts, blind)

        patch.setattr(Generator, "generate", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate(model, template, tiling, val_dir, CFG, predictions_dir=tmp_path)
    assert sorted(p.name for p in tmp_path.glob("*.jsonl")) == ["attribute.jsonl", "grounding.jsonl"]
    resumed = evaluate(model, template, tiling, val_dir, CFG, predictions_dir=tmp_path)
    assert resumed.tasks == evaluate(model, template, tiling, val_dir, CFG).tasks


def test_other_weights_or_settings_start_anew(
    model: InternVL, template: ChatTemplate, tiling: TilingConfig, val_dir: Path, tmp_path: Path, generated: list[str]
) -> None:
    cfg = replace(CFG, tasks=("attribute",), blind=False)
    evaluate(model, template, tiling, val_dir, cfg, predictions_dir=tmp_path)
    generated.clear()
    evaluate(model, template, tiling, val_dir, replace(cfg, max_new_tokens=2), predictions_dir=tmp_path)
    assert len(generated) == 3
    generated.clear()
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    evaluate(model, template, tiling, val_dir, replace(cfg, max_new_tokens=2), predictions_dir=tmp_path)
    assert len(generated) == 3


def test_a_broken_picture_is_a_counted_skip(
    model: InternVL, template: ChatTemplate, tiling: TilingConfig, tmp_path: Path
) -> None:
    samples = list(generate("val", 33, 0, tasks=("attribute",)))[:3]
    broken = samples[1]
    suffix, data = broken.images[0]
    samples[1] = RawSample(broken.key, broken.record, ((suffix, data[: len(data) * 2 // 3]),))
    write_shards(samples, tmp_path / "val", 10)
    tiles = replace(tiling, max_tiles=1)
    (task,) = evaluate(model, template, tiles, tmp_path / "val", CFG).tasks
    assert (task.n, task.num_skipped) == (2, 1)
    assert "corrupt_image" in task.predictions[1].error and task.predictions[1].key == broken.key


def test_training_mode_is_restored(
    model: InternVL, template: ChatTemplate, tiling: TilingConfig, val_dir: Path
) -> None:
    model.train()
    evaluate(model, template, tiling, val_dir, replace(CFG, samples_per_task=1, blind=False))
    assert model.training


def test_examples_show_both_outcomes() -> None:
    def question(key: str) -> Question:
        return Question(key, (Turn("human", "?"),), "a", False, lambda: [Image.new("RGB", (int(key), 1))])

    outcomes = [("1", False, "corrupt"), ("2", True, ""), ("3", True, ""), ("4", False, ""), ("5", False, "")]
    task = Task("t", tuple(question(key) for key, *_ in outcomes))
    result = TaskResult("t", "exact_match", tuple(Prediction(k, "?", "a", "b", c, error=e) for k, c, e in outcomes))
    examples = pick_examples(task, result)
    assert [(e.prediction.key, e.images[0].width) for e in examples] == [("2", 2), ("4", 4)]


def test_every_task_has_an_example(
    model: InternVL, template: ChatTemplate, tiling: TilingConfig, val_dir: Path, tmp_path: Path
) -> None:
    for _ in range(2):  # the second time from the stored predictions
        result = evaluate(model, template, tiling, val_dir, CFG, predictions_dir=tmp_path)
        assert {e.task for e in result.examples} == {t.name for t in result.tasks}
        assert all(len(e.images) == 3 for e in result.examples if e.task == "video")


def test_predictions_are_one_line_a_question(
    model: InternVL, template: ChatTemplate, tiling: TilingConfig, val_dir: Path, tmp_path: Path
) -> None:
    evaluate(model, template, tiling, val_dir, replace(CFG, tasks=("grounding",)), predictions_dir=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "grounding.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == ["1", "6", "11"]
    assert json.loads((tmp_path / "settings.json").read_text())["weights"]


def test_fingerprint_follows_the_weights(model: InternVL) -> None:
    before = weights_fingerprint(model)
    assert weights_fingerprint(model.to(torch.bfloat16)) != before
    model.to(torch.float32)
    changed = weights_fingerprint(model)
    with torch.no_grad():
        next(model.vision_tower.parameters()).view(-1)[0] += 1e-3
    assert weights_fingerprint(model) != changed


def test_a_prompt_the_template_refuses_is_skipped(
    model: InternVL, template: ChatTemplate, tiling: TilingConfig, val_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = Processor.__call__

    def refuse(self: Processor, turns: object, images: object, is_video: bool, key: str) -> object:
        if key == "5":
            raise SampleError(key, "special_token_in_text")
        return call(self, turns, images, is_video, key)  # type: ignore[arg-type]

    monkeypatch.setattr(Processor, "__call__", refuse)
    (task,) = evaluate(model, template, tiling, val_dir, replace(CFG, tasks=("attribute",))).tasks
    assert [bool(p.error) for p in task.predictions] == [False, True, False]
    assert task.blind is not None
