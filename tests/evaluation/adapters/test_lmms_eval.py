"""lmms-eval's requests: what the entry point names is registered, created and asked."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from internvl_lab.errors import ConfigError, InternVLLabError
from internvl_lab.evaluation.adapters import lmms_eval

ENTRY_POINT = "internvl_lab.evaluation.adapters.lmms_eval:manifests"
ARGUMENTS = "checkpoint=asset:quickstart,dtype=float32"


@dataclass
class Request:
    """Stand for an `Instance`."""

    args: tuple[Any, ...]


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (112, 112, 3), dtype=np.uint8))


def entry_point() -> Any:
    """Resolve the entry point as pip would."""
    module, _, name = ENTRY_POINT.partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.fixture
def model(harnesses: None, tmp_path: Path) -> Any:
    """Create the model as lmms-eval does, with a task of four documents."""
    (manifest,) = entry_point()()
    module, _, name = manifest.simple_class_path.rpartition(".")
    made = getattr(importlib.import_module(module), name).create_from_arg_string(
        ARGUMENTS, {"batch_size": "2", "max_batch_size": None, "device": None}
    )
    picture(1).save(tmp_path / "v.gif", save_all=True, append_images=[picture(2), picture(3)])
    picture(1).save(tmp_path / "p.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    visuals = {
        "text": None,
        "one": [picture(1)],
        "nested": [[picture(2)], [picture(3), None]],
        "path": [str(tmp_path / "p.png")],
        "video": [str(tmp_path / "v.gif")],
        "broken": [str(tmp_path / "broken.png")],
        "mixed": [str(tmp_path / "v.gif"), picture(1)],
        "array": [np.zeros((4, 4, 3))],
    }
    made.task_dict["mme"] = {"test": visuals}
    return made


def request(context: str, settings: Any, doc: str) -> Request:
    return Request((context, settings, lambda document: document, doc, "mme", "test"))


def test_registration(harnesses: None) -> None:
    (manifest,) = entry_point()()
    assert (manifest.model_id, manifest.chat_class_path) == ("internvl_lab", None)
    assert lmms_eval.InternVLLab.is_simple and not lmms_eval.InternVLLab.__abstractmethods__
    with pytest.raises(AttributeError, match="no attribute 'Other'"):
        _ = lmms_eval.Other


def test_without_lmms_eval_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmms_eval", None)
    with pytest.raises(ConfigError, match=r"lmms_eval\.models\.registry_v2 cannot be imported .*: install lmms-eval"):
        lmms_eval.manifests()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "checkpoint= is missing"),
        (f"{ARGUMENTS},hue=red", "unknown key 'hue'"),
        ("checkpoint=nowhere", "nowhere"),
    ],
)
def test_wrong_arguments(harnesses: None, arguments: str, message: str) -> None:
    with pytest.raises(InternVLLabError, match=message):
        lmms_eval.InternVLLab.create_from_arg_string(arguments, {})


def test_requests_of_all_kinds(model: Any) -> None:
    settings = {"max_new_tokens": 6, "temperature": 0, "do_sample": False, "until": ["\n\n"]}
    kinds = ["text", "one", "nested", "path", "video", "broken", "mixed", "array"]
    requests = [request("What is there?", dict(settings), kind) for kind in kinds]
    answers = model.generate_until(requests)
    assert answers[5:] == ["", "", ""] and all(answers[:5])
    assert answers[1] == answers[3]  # the same picture, once as a file
    assert model._harness.num_skipped == 3
    assert model.batch_size == 2 and model.device.type == "cpu"
    assert [seen[2] for seen in model.cache_hook.seen] == answers
    alone = [model.generate_until([one])[0] for one in requests[:5]]
    assert alone == answers[:5]


def test_every_group_has_its_own_settings(model: Any) -> None:
    first, second = {"max_new_tokens": 1}, {"max_new_tokens": 8, "until": ["e"]}
    answers = model.generate_until([request("What is there?", s, "one") for s in (first, second, first)])
    assert answers[0] == answers[2] != answers[1] and "e" not in answers[1]


def test_repeated_questions_are_drawn_anew(model: Any) -> None:
    requests = [request("What is there?", {"max_new_tokens": 8, "temperature": 3.0}, "one") for _ in range(4)]
    answers = model.generate_until(requests)
    assert len(set(answers)) > 1 and model.generate_until(requests) == answers


def test_the_best_choice_has_the_smallest_loss(model: Any) -> None:
    (greedy,) = model.generate_until([request("What is there?", {"max_new_tokens": 12}, "one")])
    choices = ["blue circle", greedy, lambda document: "seven"]
    found = [result.text for result in model.loglikelihood([request("What is there?", c, "one") for c in choices])]
    losses = [loss for loss, _ in found]
    assert losses.index(min(losses)) == 1 and [is_greedy for _, is_greedy in found] == [False, True, False]
    broken = model.loglikelihood([request("What?", "a", "broken"), request("What?", "b", "broken")])
    assert [result.text for result in broken] == [(float("inf"), False)] * 2


def test_several_rounds_are_refused(model: Any) -> None:
    with pytest.raises(ConfigError, match="generate_until_multi_round"):
        model.generate_until_multi_round([])


def test_each_process_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lmms_eval._local_device({"checkpoint": "x"}) == {"checkpoint": "x"}
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert lmms_eval._local_device({"device": "cuda"})["device"] == "cuda:3"
    assert lmms_eval._local_device({"device": "cpu"})["device"] == "cpu"
