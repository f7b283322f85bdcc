from __future__ import annotations

from collections import Counter

import pytest

from internvl_lab.data.miniworld import TASKS, generate_text, text_twin
from internvl_lab.data.miniworld.sample import make_sample
from internvl_lab.data.miniworld.text_twin import text_range
from internvl_lab.data.records import parse_record
from internvl_lab.errors import ConfigError


def test_twin_holds_the_scene_in_place_of_the_picture() -> None:
    for index in range(40):
        raw = make_sample("finetune", index, 0, "attribute", with_images=False)
        twin = text_twin(raw)
        assert twin is not None
        before, after = raw.record["conversations"], twin.record["conversations"]
        assert after[0]["value"] == before[0]["value"].replace("<image>", raw.record["scenes"][0])
        assert after[1:] == before[1:]
        assert twin.record["answer"] == raw.record["answer"]
        assert twin.images == ()
        assert "image" not in twin.record


def test_the_sample_itself_is_left_as_it_was() -> None:
    raw = make_sample("finetune", 3, 0, "captioning", with_images=False)
    text_twin(raw)
    assert raw.record["conversations"][0]["value"].startswith("<image>\n")


def test_several_pictures_and_frames_keep_their_names() -> None:
    images = text_twin(make_sample("finetune", 0, 0, "multi_image", with_images=False))
    frames = text_twin(make_sample("finetune", 0, 0, "video", with_images=False))
    assert images is not None
    assert frames is not None
    assert images.record["conversations"][0]["value"].startswith("Image-1: ")
    lines = frames.record["conversations"][0]["value"].split("\n")
    assert [line.split(":")[0] for line in lines[:4]] == ["Frame-1", "Frame-2", "Frame-3", "Frame-4"]


def test_text_only_has_no_twin() -> None:
    assert text_twin(make_sample("val", 0, 0, "text_only")) is None


@pytest.mark.parametrize("split", ["pretrain", "finetune"])
def test_generated_text_holds_every_task_and_no_picture(split: str) -> None:
    samples = list(generate_text(split, 130, 0))
    assert Counter(s.record["task"] for s in samples) == dict.fromkeys(TASKS, 10) | {"text_only": 30}
    assert len({s.key for s in samples}) == 130
    for sample in samples:
        assert sample.key == sample.record["id"]
        assert sample.key.endswith("-text")
        assert parse_record(sample.record, sample.key).images == ()
        text = "".join(turn["value"] for turn in sample.record["conversations"])
        assert "<image>" not in text
        assert "<video>" not in text


def test_text_range_takes_both_training_splits_in_turn() -> None:
    samples = list(text_range(0, 8, 0, ("ocr", "chart")))
    assert [s.key.split("-")[0] for s in samples] == ["pretrain", "finetune"] * 4
    assert [s.record["task"] for s in samples] == ["ocr", "ocr", "chart", "chart"] * 2
    assert list(text_range(5, 8, 0, ("ocr", "chart"))) == samples[5:]


def test_val_never_becomes_text() -> None:
    with pytest.raises(ConfigError, match="val"):
        list(generate_text("val", 1, 0))
