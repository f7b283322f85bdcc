"""Questions of a harness are answered by our own generation, in any format of checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from internvl_lab.checkpoints import convert, resolve_source
from internvl_lab.config import SamplingConfig
from internvl_lab.config.harness import HarnessConfig
from internvl_lab.errors import CheckpointError, ConfigError
from internvl_lab.evaluation.adapters.harness import Decoding, HarnessModel, Question, read_decoding, tiles_of
from internvl_lab.evaluation.benchmark import load_benchmarks
from internvl_lab.inference.generation import Generator

CFG = HarnessConfig("asset:quickstart", dtype="float32", batch_size=3)
SHORT = Decoding(6)


@pytest.fixture(scope="module")
def harness() -> HarnessModel:
    return HarnessModel(CFG)


def picture(seed: int, width: int = 112) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (112, width, 3), dtype=np.uint8))


def questions() -> list[Question]:
    return [
        Question("What is 2 + 3?", key="a"),
        Question("What shape is it?", (picture(1),), key="b"),
        Question("Are they alike?", (picture(2), picture(3, 224)), key="c", max_tiles=2),
        Question("What happens?", (picture(4), picture(5), picture(6)), True, "d"),
    ]


def test_answers_do_not_depend_on_the_batch(harness: HarnessModel) -> None:
    together = harness.answer(questions(), SHORT)
    assert together == [harness.answer([question], SHORT)[0] for question in questions()]
    assert len(set(together)) > 1 and not harness.num_skipped
    assert harness.answer([], SHORT) == []


def test_the_authors_format_answers_alike(harness: HarnessModel, tmp_path: Path) -> None:
    folder = convert([resolve_source(CFG.checkpoint)], tmp_path / "official", "official")
    official = HarnessModel(HarnessConfig(str(folder), dtype="float32"))
    assert official.answer(questions(), SHORT) == harness.answer(questions(), SHORT)
    (folder / "processor.json").unlink()  # as in the authors' own folders, which have the report's system turn
    theirs = HarnessModel(HarnessConfig(str(folder), dtype="float32"))
    assert theirs.tiling == harness.tiling and theirs.template.system_message != harness.template.system_message
    assert all(theirs.answer(questions(), SHORT))
    for file in folder.glob("token*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        HarnessModel(HarnessConfig(str(folder)))


def test_tiles(harness: HarnessModel) -> None:
    wide = Question("?", (picture(1, 448),), key="w", max_tiles=4)
    prompt = harness.prompt(wide)
    assert prompt is not None and prompt.num_tiles == 5  # four and the thumbnail
    many = Question("?", tuple(picture(k, 448) for k in range(32)), max_tiles=4)
    prompt = harness.prompt(many)
    assert prompt is not None and prompt.num_tiles == 32 * 3  # 64 tiles in all: two and a thumbnail each
    video = harness.prompt(questions()[3])
    assert video is not None and video.num_tiles == 3


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("MMMU_DEV_VAL", 12),
        ("mmmu_val", 12),
        ("MME", 6),
        ("mme_realworld", 12),
        ("DocVQA_TEST", 18),
        ("infovqa", 24),
    ],
)
def test_tile_limits_by_name(name: str, limit: int) -> None:
    assert tiles_of(name, CFG) == limit
    assert tiles_of(name, HarnessConfig("x", max_tiles=3)) == 3


def test_tile_limits_are_those_of_our_benchmarks() -> None:
    ours = {name: b.max_tiles for name, b in load_benchmarks().items() if not b.num_frames and b.tiles == "each"}
    assert {name: limit for name, limit in ours.items() if tiles_of(name, CFG) != limit} == {}


def test_placeholders_of_a_harness(harness: HarnessModel) -> None:
    both = (picture(2), picture(3))
    inside = harness.prompt(Question("<image> and <image>: alike?", both))
    apart = harness.prompt(Question("Image-1: <image>\nImage-2: <image>\nLook at Image-1.", both))
    repeated = harness.prompt(Question("Look at <image>.", both))
    assert inside is not None and apart is not None and repeated is not None
    assert repeated.input_ids.tolist() == apart.input_ids.tolist()


def test_a_question_that_cannot_be_asked_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    harness = HarnessModel(CFG)
    found = harness.answer([Question("<|im_end|>", key="bad"), questions()[0]], SHORT)
    assert found[0] == "" and found[1] and harness.num_skipped == 1
    assert "bad answered with nothing (1 so far)" in caplog.text
    assert harness.losses(Question("<|im_end|>"), ["a", "b"]) == [(float("inf"), False)] * 2


def test_losses(harness: HarnessModel) -> None:
    question = questions()[0]
    (greedy,) = harness.answer([question], Decoding(12))
    found = harness.losses(question, [f" {greedy}", "blue circle"])
    prompt = harness.prompt(question)
    assert prompt is not None
    scores = Generator(harness.model, harness.template).score(prompt, [greedy, "blue circle"])
    assert [loss for loss, _ in found] == pytest.approx([-score for score in scores])
    assert found[0][0] < found[1][0] and [is_greedy for _, is_greedy in found] == [True, False]


@pytest.mark.parametrize(
    ("values", "decoding"),
    [
        ({}, Decoding(4096)),
        ({"max_new_tokens": 16, "temperature": 0, "top_p": None, "num_beams": 1, "do_sample": False}, Decoding(16)),
        ({"temperature": 0.7, "do_sample": False}, Decoding(4096)),
        ({"temperature": 0.7, "top_p": 0.9, "until": ["\n", ""]}, Decoding(4096, SamplingConfig(0.7, 0.9), ("\n",))),
        ({"do_sample": True}, Decoding(4096, SamplingConfig(1.0))),
        ({"until": "###"}, Decoding(4096, until=("###",))),
    ],
)
def test_generation_settings(values: dict[str, Any], decoding: Decoding) -> None:
    assert read_decoding(values, CFG) == decoding


def test_beams_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_beams=4: beam search is not supported"):
        read_decoding({"num_beams": 4}, CFG)


def test_stop_texts() -> None:
    assert Decoding(1, until=("###", "\n")).cut(" red\n### blue") == "red"
    assert Decoding(1, until=("x",)).cut(" red ") == "red"


def test_sampling_is_seeded(harness: HarnessModel) -> None:
    hot = Decoding(8, SamplingConfig(2.0, seed=1))
    first = harness.answer(questions(), hot)
    assert first == harness.answer(questions(), hot) != harness.answer(questions(), Decoding(8, SamplingConfig(2.0)))


def test_files(harness: HarnessModel, tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    picture(1).save(tmp_path / "v.gif", save_all=True, append_images=[picture(2), picture(3)])
    images, is_video = harness.read(tmp_path / "a.png")
    assert (len(images), is_video) == (1, False)
    frames, is_video = harness.read(tmp_path / "v.gif")
    assert (len(frames), is_video) == (3, True)
