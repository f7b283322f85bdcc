"""Small stand-ins of the base classes of lmms-eval 0.7.3 and VLMEvalKit 0.2rc1, as far as a model meets them.

They keep what the real ones demand: which arguments come, what is abstract, what is looked up where. The adapters were
also run under the real packages, once and by hand, because neither installs beside this project's own environment.
"""

from __future__ import annotations

import abc
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from internvl_lab.evaluation.adapters import lmms_eval, vlmevalkit


class LmmsBase(abc.ABC):
    """Stand for `lmms_eval.api.model.lmms`."""

    is_simple = True

    def __init__(self) -> None:
        self._rank, self._world_size, self.task_dict = 0, 1, {}
        self.cache_hook: Any = Hook()

    @abc.abstractmethod
    def loglikelihood(self, requests: Any) -> Any: ...

    @abc.abstractmethod
    def generate_until(self, requests: Any) -> Any: ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests: Any) -> Any: ...

    @property
    def rank(self) -> int:
        return self._rank

    @classmethod
    def create_from_arg_string(cls, text: str, additional: dict[str, Any]) -> Any:
        """Split `a=b,c=d`; numbers become numbers, None of the command line is left out."""
        pairs = [pair.split("=", 1) for pair in text.split(",") if pair]
        values = {name: int(value) if value.isnumeric() else value for name, value in pairs}
        return cls(**values, **{name: value for name, value in additional.items() if value is not None})


class Hook:
    """Record what the answers' cache is told."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def add_partial(self, kind: str, request: Any, answer: str) -> None:
        self.seen.append((kind, request, answer))


@dataclass
class GenerationResult:
    """Stand for `lmms_eval.api.instance.GenerationResult`."""

    text: Any


@dataclass(frozen=True)
class ModelManifest:
    """Stand for `lmms_eval.models.registry_v2.ModelManifest`."""

    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple[str, ...] = ()


class InternVLChat:
    """Stand for VLMEvalKit's class: prompts and tile limits by the set's name, and a generate that checks types."""

    INTERLEAVE = False

    def __init__(self, model_path: str) -> None:
        raise AssertionError("the real one would load its own model here")

    def set_max_num(self, dataset: str | None) -> None:
        self.total_max_num = 64
        self.max_num = 12 if dataset and "MMMU" in dataset else 1 if dataset == "Video" else 6

    def use_custom_prompt(self, dataset: str) -> bool:
        return self._use_custom_prompt and dataset != "Video"

    def build_prompt(self, line: dict[str, Any], dataset: str) -> list[dict[str, Any]]:
        cot = "\nThink." if self.use_cot and self.cot_prompt is None else ""
        return [{"type": "text", "value": line["question"] + cot}, {"type": "image", "value": self.dump_image(line)}]

    def set_dump_image(self, dump: Any) -> None:
        self.dump_image_func = dump

    def dump_image(self, line: dict[str, Any]) -> str:
        return str(self.dump_image_func(line))

    def generate(self, message: list[dict[str, Any]], dataset: str | None = None) -> str:
        assert all(part["type"] in ("text", "image", "video") for part in message)
        return str(self.generate_inner(message, dataset))


def reorganize_prompt(message: list[dict[str, Any]], count: int, dataset: str | None = None) -> str:
    """Stand for VLMEvalKit's: placeholders first, then the text."""
    lines = "<image>\n" if count == 1 else "".join(f"Image-{k}: <image>\n" for k in range(1, count + 1))
    return lines + "\n".join(part["value"] for part in message if part["type"] == "text")


def _module(name: str, **content: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(content)
    return module


@pytest.fixture
def harnesses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the stand-ins where the adapters look for the packages."""
    modules = [
        _module("lmms_eval.api.model", lmms=LmmsBase),
        _module("lmms_eval.api.instance", GenerationResult=GenerationResult),
        _module("lmms_eval.models.registry_v2", ModelManifest=ModelManifest),
        _module(
            "vlmeval.vlm.internvl.internvl_chat",
            InternVLChat=InternVLChat,
            reorganize_prompt=reorganize_prompt,
            build_video_prompt=lambda prompt, dataset: prompt.replace("Image-", "Frame-"),
            DATASET_MODALITY=lambda dataset: "VIDEO" if dataset == "Video" else "IMAGE",
        ),
    ]
    for module in modules:
        monkeypatch.setitem(sys.modules, module.__name__, module)
    lmms_eval.model_class.cache_clear()
    vlmevalkit.model_class.cache_clear()
    yield
    lmms_eval.model_class.cache_clear()
    vlmevalkit.model_class.cache_clear()
