"""VLMEvalKit's messages, and the files that make a checkpoint one of its models."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from internvl_lab.config.harness import HarnessConfig
from internvl_lab.errors import ConfigError
from internvl_lab.evaluation.adapters import vlmevalkit
from internvl_lab.evaluation.adapters.harness import Decoding, Question

SETTINGS: dict[str, Any] = {"checkpoint": "asset:quickstart", "dtype": "float32", "max_new_tokens": 6}


@pytest.fixture
def model(harnesses: None) -> Any:
    return vlmevalkit.model_class()(**SETTINGS)


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    paths = [str(tmp_path / f"{k}.png") for k in range(3)]
    for k, path in enumerate(paths):
        pixels = np.random.default_rng(k).integers(0, 256, (112, 112 + 112 * k, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


def message(text: str, *paths: str) -> list[dict[str, str]]:
    return [{"type": "text", "value": text}, *({"type": "image", "value": path} for path in paths)]


def test_without_vlmevalkit_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    vlmevalkit.model_class.cache_clear()
    monkeypatch.setitem(sys.modules, "vlmeval", None)
    with pytest.raises(ConfigError, match="VLMEvalKit cannot be imported"):
        vlmevalkit.model_class()


def numbered(name: str) -> str:
    return "".join(f"{name}-{k}: <image>\n" for k in (1, 2, 3)) + "What?"


def test_messages_of_all_kinds(model: Any, pictures: list[str]) -> None:
    harness, asked = model._harness, []
    answer = harness.answer

    def recorded(questions: list[Question], decoding: Decoding) -> list[str]:
        asked.append((questions[0], decoding))
        return answer(questions, decoding)

    harness.answer = recorded
    assert model.generate(message("What?", pictures[0]), "MMStar")
    assert model.generate(message("What?", *pictures), "MMMU_DEV_VAL")
    assert model.generate(message("What?", *pictures), "Video")
    assert model.generate(message("What is 1 + 1?"))
    shown = [(q.text, [image.size for image in q.images], q.is_video, q.max_tiles) for q, _ in asked]
    assert shown == [
        ("<image>\nWhat?", [(112, 112)], False, 6),
        (numbered("Image"), [(224, 224), (224, 112), (336, 112)], False, 12),
        (numbered("Frame"), [(112, 112), (224, 112), (336, 112)], True, 1),
        ("What is 1 + 1?", [], False, 6),
    ]
    assert {decoding for _, decoding in asked} == {Decoding(6)}


def test_the_harness_builds_the_prompt(model: Any, pictures: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model.set_dump_image(lambda line: pictures[0])
    assert model.use_custom_prompt("MMStar") and not model.use_custom_prompt("Video")
    assert model.build_prompt({"question": "Why?"}, "MMStar") == message("Why?", pictures[0])
    monkeypatch.setenv("USE_COT", "1")
    assert vlmevalkit.model_class()(**SETTINGS).use_cot


def test_a_broken_picture_is_counted(model: Any, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    assert model.generate(message("What?", str(tmp_path / "x.png")), "MMStar") == ""
    assert model.generate([*message("What?"), {"type": "video", "value": "v.mp4"}], "MMStar") == ""
    assert model._harness.num_skipped == 2


def test_a_fixed_tile_limit(harnesses: None, pictures: list[str]) -> None:
    model = vlmevalkit.model_class()(**SETTINGS, max_tiles=2)
    seen: list[int] = []
    model._harness.answer = lambda questions, decoding: [str(seen.append(questions[0].max_tiles))]
    model.generate(message("What?", pictures[2]), "MMMU_DEV_VAL")
    assert seen == [2]


def test_several_turns_are_refused(model: Any) -> None:
    with pytest.raises(ConfigError, match="MMDU: InternVLLab answers single questions"):
        model.chat_inner([], "MMDU")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "VLMEvalKit"
    (root / "vlmeval" / "vlm").mkdir(parents=True)
    (root / "vlmeval" / "config.py").write_text("supported_VLM = {'other': None}\n\n\n")
    return root


def test_install(checkout: Path, harnesses: None) -> None:
    for name in ("first", "second", "second"):
        vlmevalkit.install(checkout, name, HarnessConfig("asset:quickstart", dtype="float32", max_new_tokens=6))
    vlmevalkit.install(checkout, "third", HarnessConfig("outputs/latest", max_tiles=1))
    config = (checkout / "vlmeval" / "config.py").read_text()
    assert config == "supported_VLM = {'other': None}\n" + vlmevalkit.CONFIG_LINE
    listed = json.loads((checkout / "vlmeval" / "vlm" / "internvl_lab.json").read_text())
    assert list(listed) == ["first", "second", "third"] and listed["first"] == SETTINGS
    assert listed["third"] == {"max_tiles": 1, "checkpoint": str(Path("outputs/latest").resolve())}
    source = checkout / "vlmeval" / "vlm" / "internvl_lab.py"
    names = {"__file__": str(source), "__name__": "vlmeval.vlm.internvl_lab"}
    exec(compile(source.read_text(), str(source), "exec"), names)
    assert set(names["MODELS"]) == {"first", "second", "third"}
    assert names["MODELS"]["first"]().generate(message("What is 1 + 1?"))


def test_install_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no checkout of VLMEvalKit"):
        vlmevalkit.install(tmp_path, "m", HarnessConfig("asset:quickstart"))
