"""VLMEvalKit's model `InternVLLab`: its own InternVL class, prompts and tile limits, answered by a checkpoint of ours.

VLMEvalKit has no entry points: a model is a file in `vlmeval/vlm`, and an entry of `supported_VLM` in its `config.py`.
`python -m internvl_lab vlmevalkit` writes both (`install`).

::

    message [{type, value}] ─ reorganize_prompt (VLMEvalKit's) ─> text with <image> ─ HarnessModel ─> answer

The report's reasoning, real-world and many other figures were made with VLMEvalKit's prompts for InternVL, chain of
thought (USE_COT=1) included; so these stay VLMEvalKit's. Checked against VLMEvalKit 0.2rc1.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from internvl_lab.atomic import write_atomic
from internvl_lab.config.harness import HarnessConfig, harness_config
from internvl_lab.errors import ConfigError, SampleError
from internvl_lab.evaluation.adapters.harness import Decoding, HarnessModel, Question
from internvl_lab.evaluation.items import double_first
from internvl_lab.inference.chat import read_image

CLASS_NAME = "InternVLLab"
MODULE = "internvl_lab"
MODEL_FILE = '''"""Checkpoints of internvl-lab; written by `python -m internvl_lab vlmevalkit`."""

from pathlib import Path

from internvl_lab.evaluation.adapters.vlmevalkit import read_models

MODELS = read_models(Path(__file__).with_suffix(".json"))
'''
CONFIG_LINE = f"from vlmeval.vlm.{MODULE} import MODELS; supported_VLM.update(MODELS)  # noqa: E402, E702\n"
"""The last line of VLMEvalKit's `vlmeval/config.py`."""
UPSCALED = "MMMU"
"""Sets whose first image is doubled. Source: VLMEvalKit, `InternVLChat.generate_v2`."""


@cache
def model_class() -> type:
    """Return the class that VLMEvalKit creates.

    Raises:
        ConfigError: VLMEvalKit, or a package it needs, is missing.
    """
    try:
        harness = importlib.import_module("vlmeval.vlm.internvl.internvl_chat")
    except ImportError as error:
        raise ConfigError(
            f"VLMEvalKit cannot be imported ({error}): install it in an environment of its own, with internvl-lab"
        ) from error
    names = {"__doc__": _Answers.__doc__, "_vlmeval": harness}
    return type(CLASS_NAME, (_Answers, harness.InternVLChat), names)


class _Answers:
    """Answer VLMEvalKit's messages; see `HarnessConfig` for the arguments."""

    is_api = False
    INTERLEAVE = True
    VIDEO_LLM = False
    """Videos come as frames."""
    _vlmeval: Any
    max_num: int

    def __init__(self, **values: Any) -> None:
        # what VLMEvalKit's class would have set, without the model that it would have loaded
        self.use_cot = os.getenv("USE_COT") == "1"
        self.use_mpo_prompt = self.use_postprocess = self.use_lmdeploy = False
        self._use_custom_prompt = self.screen_parse = True
        self.cot_prompt = self.system_prompt = self.dump_image_func = None
        self.kwargs: dict[str, Any] = {}
        self._harness = HarnessModel(harness_config(values))

    def generate_inner(self, message: list[dict[str, Any]], dataset: str | None = None) -> str:
        """Answer one message: texts and paths of pictures, or of a video's frames.

        A message with broken pictures, or with anything else, is answered with nothing, logged and counted.
        """
        self.set_max_num(dataset)
        paths = [Path(part["value"]) for part in message if part["type"] == "image"]
        text = self._vlmeval.reorganize_prompt(message, len(paths), dataset=dataset)
        is_video = dataset is not None and self._vlmeval.DATASET_MODALITY(dataset) == "VIDEO"
        if is_video:
            text = self._vlmeval.build_video_prompt(text, dataset)
        key = str(paths[0]) if paths else text[:40]
        try:
            if others := {part["type"] for part in message} - {"text", "image"}:
                raise SampleError(key, "unknown_part", f"{', '.join(others)}: only text, pictures and frames are read")
            images = [read_image(path) for path in paths]
        except SampleError as error:
            self._harness.skip(key, error)
            return ""
        if dataset is not None and UPSCALED in dataset:
            images = double_first(images)
        cfg = self._harness.cfg
        question = Question(text, tuple(images), is_video, key, cfg.max_tiles or self.max_num)
        limit = self.kwargs.get("max_new_tokens", 0)  # some prompts of VLMEvalKit raise it
        (answer,) = self._harness.answer([question], Decoding(max(limit, cfg.max_new_tokens)))
        return answer

    def set_max_num(self, dataset: str | None) -> None:
        """Choose the tile limit of a set; VLMEvalKit's class, next in line, does."""
        super().set_max_num(dataset)  # type: ignore[misc]

    def chat_inner(self, message: list[dict[str, Any]], dataset: str | None = None) -> str:
        """Refuse sets of several turns.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{dataset}: {CLASS_NAME} answers single questions; leave out sets of several turns")


def read_models(path: Path) -> dict[str, Callable[[], Any]]:
    """Return what VLMEvalKit keeps in `supported_VLM`: a model's name -> what loads it.

    Args:
        path: the JSON file that `install` wrote.
    """
    listed = json.loads(path.read_text(encoding="utf-8"))
    return {name: partial(_create, **settings) for name, settings in listed.items()}


def _create(**settings: Any) -> Any:
    return model_class()(**settings)


def install(root: Path, name: str, cfg: HarnessConfig) -> dict[str, Path]:
    """Put a checkpoint into a checkout of VLMEvalKit, so that its `run.py --model NAME` finds it.

    Args:
        root: the checkout; gets `vlmeval/vlm/internvl_lab.py` and `.json`, and `vlmeval/config.py` one line more.
            The same command with another name adds a checkpoint, with the same name replaces it.
        name: of the model, in VLMEvalKit's command and result files.
        cfg: checkpoint and limits; a relative path is made absolute.
    Returns:
        What it is -> path of everything written or changed.
    Raises:
        ConfigError: `root` is no checkout.
    """
    supported = root / "vlmeval" / "config.py"
    model_file = root / "vlmeval" / "vlm" / f"{MODULE}.py"
    if not supported.is_file() or not model_file.parent.is_dir():
        raise ConfigError(f"{root} is no checkout of VLMEvalKit: {supported} does not exist")
    list_file = model_file.with_suffix(".json")
    listed = json.loads(list_file.read_text(encoding="utf-8")) if list_file.is_file() else {}
    checkpoint = cfg.checkpoint if cfg.checkpoint.startswith("asset:") else str(Path(cfg.checkpoint).resolve())
    listed[name] = {**_changed(cfg), "checkpoint": checkpoint}
    write_atomic(list_file, json.dumps(listed, indent=1) + "\n")
    write_atomic(model_file, MODEL_FILE)
    content = supported.read_text(encoding="utf-8")
    if CONFIG_LINE not in content:
        write_atomic(supported, content.rstrip("\n") + "\n" + CONFIG_LINE)
    return {"model file": model_file, "list of models": list_file, "config": supported}


def _changed(cfg: HarnessConfig) -> dict[str, Any]:
    """Return the settings that differ from their defaults."""
    defaults = vars(HarnessConfig(cfg.checkpoint))
    return {name: value for name, value in vars(cfg).items() if value != defaults[name]}
