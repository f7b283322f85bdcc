"""Tasks read from shards."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from internvl_lab.data import RawSample, Record, write_shards
from internvl_lab.data.frames import spread_frames
from internvl_lab.data.miniworld import TASKS, generate
from internvl_lab.errors import ConfigError, SampleError, ShardError
from internvl_lab.evaluation.metrics import parse_box
from internvl_lab.evaluation.tasks import VIDEO_FRAMES, read_tasks, split_answer
from internvl_lab.text import ChatTemplate, Turn


def test_all_tasks_in_order_of_appearance(val_dir: Path, template: ChatTemplate) -> None:
    tasks, index = read_tasks(val_dir, template)
    assert [task.name for task in tasks] == ["attribute", "grounding", "multi_image", "video", "text_only"]
    assert [len(task.questions) for task in tasks] == [3] * 5
    assert len(index) == 15


def test_metric_of_each_task(val_dir: Path, template: ChatTemplate) -> None:
    metrics = {task.name: task.metric for task in read_tasks(val_dir, template)[0]}
    assert metrics.pop("grounding") == "iou_at_50"
    assert set(metrics.values()) == {"exact_match"}


def test_chosen_tasks_and_limit(val_dir: Path, template: ChatTemplate) -> None:
    tasks, _ = read_tasks(val_dir, template, ("text_only", "attribute"), limit=2)
    assert [task.name for task in tasks] == ["text_only", "attribute"]
    assert [[q.key for q in task.questions] for task in tasks] == [["4", "9"], ["0", "5"]]


def test_prompt_holds_no_answer(val_dir: Path, template: ChatTemplate) -> None:
    (task,), _ = read_tasks(val_dir, template, ("attribute",))
    question = task.questions[0]
    assert question.turns == (Turn("human", "<image>\nWhat colour?"),)
    assert question.reference == "red" and question.text == "<image>\nWhat colour?"


def test_pictures_come_in_order(val_dir: Path, template: ChatTemplate) -> None:
    tasks, _ = read_tasks(val_dir, template)
    pictures = {task.name: task.questions[1].load_images() for task in tasks}
    assert {name: [image.width for image in images] for name, images in pictures.items()} == {
        "attribute": [56],
        "grounding": [56],
        "multi_image": [56, 112],
        "video": [56, 112, 56],
        "text_only": [],
    }
    assert all(image.mode == "RGB" for images in pictures.values() for image in images)
    assert [task.questions[0].is_video for task in tasks] == [False, False, False, True, False]


def test_a_long_video_shows_the_middle_of_equal_parts(tmp_path: Path, template: ChatTemplate) -> None:
    frames = tuple(("png", _grey(level)) for level in range(0, 128, 2))
    turns = [{"from": "human", "value": "<video>what?"}, {"from": "gpt", "value": "grey"}]
    record = {"task": "film", "answer": "grey", "video": "film.mp4", "conversations": turns}
    write_shards([RawSample("v", record, frames)], tmp_path, 1)
    (task,), _ = read_tasks(tmp_path, template)
    (question,) = task.questions
    assert question.is_video and question.text.count("<image>") == VIDEO_FRAMES
    shown = [picture.getpixel((0, 0))[0] for picture in question.load_images()]  # type: ignore[index]
    assert shown == [2 * frame for frame in spread_frames(64, VIDEO_FRAMES)]


def _grey(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (level, level, level)).save(buffer, "PNG")
    return buffer.getvalue()


def test_judge(val_dir: Path, template: ChatTemplate) -> None:
    grounding, attribute = read_tasks(val_dir, template, ("grounding", "attribute"))[0]
    assert grounding.judge("[[100, 100, 500, 400]]", grounding.questions[0].reference)
    assert not attribute.judge("[[100, 100, 500, 400]]", attribute.questions[0].reference)


def test_unknown_task_names_the_choices(val_dir: Path, template: ChatTemplate) -> None:
    with pytest.raises(ConfigError, match=r"unknown task 'chess'.*attribute, grounding"):
        read_tasks(val_dir, template, ("attribute", "chess"))


def test_shards_without_tasks_are_refused(tmp_path: Path, template: ChatTemplate) -> None:
    samples = list(generate("val", 2, 0))
    for raw in samples:
        del raw.record["task"]
    write_shards(samples, tmp_path / "val", 10)
    with pytest.raises(ConfigError, match="no record"):
        read_tasks(tmp_path / "val", template)


def test_missing_shards(tmp_path: Path, template: ChatTemplate) -> None:
    with pytest.raises(ShardError, match="nowhere"):
        read_tasks(tmp_path / "nowhere", template)


def test_earlier_turns_stay_in_the_prompt() -> None:
    turns = tuple(Turn(r, t) for r, t in (("system", "s"), ("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d")))
    prompt, answer = split_answer(Record("k", turns, (), False, {}))
    assert (prompt, answer) == (turns[:4], "d")


@pytest.mark.parametrize("roles", [("gpt", "human"), ("system", "gpt"), ("human",)])
def test_an_answer_without_question_is_refused(roles: tuple[str, ...]) -> None:
    with pytest.raises(SampleError, match="k: no_answer"):
        split_answer(Record("k", tuple(Turn(role, "x") for role in roles), (), False, {}))


def test_miniworld_offers_every_task(tmp_path: Path, template: ChatTemplate) -> None:
    write_shards(generate("val", 2 * len(TASKS), 0), tmp_path / "val", 100)
    tasks = {task.name: task for task in read_tasks(tmp_path / "val", template)[0]}
    assert set(tasks) == set(TASKS)
    for task in tasks.values():
        for question in task.questions:
            assert question.reference and task.judge(question.reference, question.reference)
            assert question.text.count("<image>") == len(question.load_images())
    assert all(parse_box(question.reference) for question in tasks["grounding"].questions)
