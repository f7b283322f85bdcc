from __future__ import annotations

import hashlib
import io
import json
from collections import Counter

import pytest
from PIL import Image

from internvl_lab.data.miniworld import TASKS, generate
from internvl_lab.data.miniworld.sample import DRAW, MAX_TURNS, generate_range, make_sample
from internvl_lab.data.miniworld.vocabulary import OPTIONAL_TASKS
from internvl_lab.data.records import parse_record
from internvl_lab.data.shards import RawSample
from internvl_lab.errors import ConfigError

SEED = 0


@pytest.fixture(scope="module")
def splits() -> dict[str, list[RawSample]]:
    sizes = {"pretrain": 2000, "finetune": 2000, "val": 1100}
    return {split: list(generate(split, number, SEED)) for split, number in sizes.items()}


def _hashes(samples: list[RawSample]) -> set[str]:
    return {hashlib.sha1(data).hexdigest() for sample in samples for _, data in sample.images}


def _combinations(samples: list[RawSample]) -> set[tuple[str, str]]:
    return {(s.record["task"], c) for s in samples for c in s.record["combination"].split(" & ")}


def test_no_image_is_in_two_splits(splits: dict[str, list[RawSample]]) -> None:
    pretrain, finetune, val = (_hashes(splits[name]) for name in ("pretrain", "finetune", "val"))
    assert not pretrain & finetune
    assert not val & (pretrain | finetune)
    assert len(pretrain) > 2000


def test_no_text_only_question_is_in_two_splits(splits: dict[str, list[RawSample]]) -> None:
    prompts = [
        {s.record["conversations"][0]["value"] for s in samples if s.record["task"] == "text_only"}
        for samples in splits.values()
    ]
    assert all(len(p) > 50 for p in prompts)
    assert not prompts[0] & prompts[1]
    assert not prompts[2] & (prompts[0] | prompts[1])


def test_combinations_of_val_are_not_in_training(splits: dict[str, list[RawSample]]) -> None:
    training = _combinations(splits["pretrain"]) | _combinations(splits["finetune"])
    asked = {(s.record["task"], s.record["combination"].split(" & ")[0]) for s in splits["val"]}
    assert len(asked) > 900
    assert not asked & training


def test_tasks_take_turns(splits: dict[str, list[RawSample]]) -> None:
    for samples in splits.values():
        counts = Counter(sample.record["task"] for sample in samples)
        assert set(counts) == set(TASKS) == set(DRAW) - set(OPTIONAL_TASKS)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_records_are_valid_and_agree_with_their_images(splits: dict[str, list[RawSample]]) -> None:
    for sample in splits["pretrain"][:330] + splits["val"][:220]:
        json.dumps(sample.record)
        record = parse_record(sample.record, sample.key, num_images=len(sample.images))
        assert len(record.images) == len(sample.images)
        assert record.is_video == (sample.record["task"] == "video")
        sizes = []
        for extension, data in sample.images:
            assert extension == "jpg"
            with Image.open(io.BytesIO(data)) as image:
                sizes.append(image.size)
        raw = sample.record
        widths = raw.get("width_list", [raw["width"]] if "width" in raw else [])
        heights = raw.get("height_list", [raw["height"]] if "height" in raw else [])
        assert sizes == list(zip(widths, heights, strict=True))
        assert raw["answer"] == raw["conversations"][1]["value"]


def test_val_asks_one_question_and_training_often_several(splits: dict[str, list[RawSample]]) -> None:
    assert {len(s.record["conversations"]) for s in splits["val"]} == {2}
    turns = Counter(len(s.record["conversations"]) // 2 for s in splits["finetune"])
    assert set(turns) == set(range(1, MAX_TURNS + 1))


def test_half_of_the_pretraining_pictures_are_asked_for_everything(splits: dict[str, list[RawSample]]) -> None:
    starts = ("List every", "Count every", "Read all", "Locate every", "Describe every", "Describe the motion")
    prompts = [s.record["conversations"][0]["value"] for s in splits["pretrain"] if s.images]
    dense = sum(any(start in prompt for start in starts) for prompt in prompts)
    assert dense / len(prompts) == pytest.approx(0.5, abs=0.05)
    others = [s.record["conversations"][0]["value"] for s in splits["finetune"] + splits["val"] if s.images]
    assert not any(any(start in prompt for start in starts) for prompt in others)


def test_answers_need_the_picture(splits: dict[str, list[RawSample]]) -> None:
    limits = {"existence": 0.65, "counting": 0.3, "multi_image": 0.35, "video": 0.35, "attribute": 0.25, "chart": 0.25}
    for task in TASKS:
        answers = Counter(s.record["answer"] for s in splits["val"] if s.record["task"] == task)
        assert answers.most_common(1)[0][1] / answers.total() <= limits.get(task, 0.15), task


def test_a_sample_depends_on_its_place_alone() -> None:
    together = list(generate("finetune", 33, SEED))
    apart = [make_sample("finetune", k, SEED, TASKS[k % len(TASKS)]) for k in reversed(range(33))]
    assert together == apart[::-1]
    assert list(generate_range("finetune", 20, 33, SEED)) == together[20:]


def test_another_seed_gives_other_samples() -> None:
    first, second = (list(generate("val", 22, seed)) for seed in (0, 1))
    assert not _hashes(first) & _hashes(second)


def test_chosen_tasks_only() -> None:
    samples = list(generate("val", 6, SEED, ("ocr", "chart")))
    assert [s.record["task"] for s in samples] == ["ocr", "chart"] * 3


def test_without_images_the_record_is_the_same() -> None:
    for index, task in enumerate(TASKS):
        full, bare = (make_sample("pretrain", index, SEED, task, with_images=flag) for flag in (True, False))
        assert {k: v for k, v in full.record.items() if k != "regions"} == bare.record  # regions come from painting
        assert bare.images == ()


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"test.*pretrain, finetune, val"):
        list(generate("test", 1, SEED))
    with pytest.raises(ConfigError, match="chess"):
        list(generate("val", 1, SEED, ("ocr", "chess")))
