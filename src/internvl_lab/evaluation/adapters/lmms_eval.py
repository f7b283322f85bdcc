"""lmms-eval's model `internvl_lab`, found through the entry-point group `lmms_eval.models`.

    lmms-eval --model internvl_lab --model_args checkpoint=outputs/latest --tasks mme --batch_size 8

::

    Instance.args ─ task_dict[task][split][doc_id] ─ doc_to_visual ─> Question ─ HarnessModel ─> answer

Both packages in one environment. Keys of `--model_args`: `config.harness.HarnessConfig`. Several processes: `accelerate
launch`, one GPU each. Checked against lmms-eval 0.7.3.
"""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from internvl_lab.config.harness import harness_config
from internvl_lab.errors import ConfigError, SampleError
from internvl_lab.evaluation.adapters.harness import Decoding, HarnessModel, Question, read_decoding, tiles_of
from internvl_lab.evaluation.answering import BATCHES_PER_CHUNK
from internvl_lab.evaluation.runner import progress_bar

NAME = "internvl_lab"
CLASS_NAME = "InternVLLab"
FEW_SHOT_DELIMITER = "\n\n"
"""lmms-eval puts it into `until` of every task that names none; reasoning would end at its first paragraph."""
_LEFT_OUT = ("max_batch_size",)
"""What lmms-eval hands to every model and we do not use."""


def manifests() -> list[Any]:
    """Return what lmms-eval registers; the entry point names this function.

    Raises:
        ConfigError: lmms-eval is missing, or older than 0.7.
    """
    registry = _import("lmms_eval.models.registry_v2")
    return [registry.ModelManifest(NAME, simple_class_path=f"{__name__}.{CLASS_NAME}")]


@cache
def model_class() -> type:
    """Return the class that lmms-eval creates: its own base class, answered by a checkpoint of ours.

    Raises:
        ConfigError: lmms-eval is missing.
    """
    return type(CLASS_NAME, (_Answers, _import("lmms_eval.api.model").lmms), {"__doc__": _Answers.__doc__})


def __getattr__(name: str) -> type:
    """Make the class when lmms-eval asks for it, so that this module imports without lmms-eval."""
    if name == CLASS_NAME:
        return model_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _import(name: str) -> Any:
    """Import a module of lmms-eval."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"{name} cannot be imported ({error}): install lmms-eval 0.7 or later in an environment of its own"
        ) from error


class _Answers:
    """Answer lmms-eval's requests; see `HarnessConfig` for the arguments."""

    is_simple = True
    task_dict: Mapping[str, Any]
    cache_hook: Any
    rank: int

    def __init__(self, **values: Any) -> None:
        super().__init__()
        given = {name: value for name, value in values.items() if name not in _LEFT_OUT}
        self._harness = HarnessModel(harness_config(_local_device(given)))
        self._num_asked: Counter[str] = Counter()

    @property
    def batch_size(self) -> int:
        """Return how many questions are answered side by side."""
        return self._harness.cfg.batch_size

    @property
    def device(self) -> Any:
        """Return where the model is."""
        return self._harness.model.device

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer requests with the arguments (context, gen_kwargs, doc_to_visual, doc_id, task, split)."""
        answers: list[str] = []
        self._num_asked.clear()
        size = BATCHES_PER_CHUNK * self.batch_size
        with progress_bar(self.rank == 0) as bar:
            row = bar.add_task(NAME, total=len(requests))
            for _, group in groupby(requests, key=lambda request: repr(request.args[1])):
                same = list(group)
                for start in range(0, len(same), size):
                    answers += self._answer(same[start : start + size])
                    bar.update(row, completed=len(answers))
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """Return (loss, is greedy) of requests with (context, continuation, doc_to_visual, doc_id, task, split).

        The loss is the mean over tokens, because lmms-eval takes the choice with the smallest value, its name
        notwithstanding (`api/task.py`, 0.7.3).
        """
        scores: list[tuple[float, bool]] = []
        # the choices of one question follow each other, and share its vision pass
        for _, group in groupby(requests, key=lambda request: (request.args[0], *map(str, request.args[3:]))):
            same = [request.args for request in group]
            context, _, doc_to_visual, doc_id, task, split = same[0]
            document = self.task_dict[task][split][doc_id]
            question = self._question(context, doc_to_visual(document), f"{task} {doc_id}", task)
            texts = [text(document) if callable(text) else text for _, text, *_ in same]
            scores += self._harness.losses(question, texts)
        # 0.7.3 turns a bare pair into its text before a task sees it, but leaves what this class holds alone
        result = getattr(_import("lmms_eval.api.instance"), "GenerationResult", None)
        return [result(pair) for pair in scores] if result else list(scores)

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuse tasks of several rounds.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{NAME} answers single questions; leave out tasks of type generate_until_multi_round")

    def _answer(self, requests: Sequence[Any]) -> list[str]:
        """Answer requests that share their generation settings."""
        settings = requests[0].args[1]
        questions = []
        for context, _, doc_to_visual, doc_id, task, split in (request.args for request in requests):
            visuals = doc_to_visual(self.task_dict[task][split][doc_id])
            key = f"{task} {doc_id}"
            self._num_asked[key] += 1  # a task that repeats its questions wants other draws each time
            questions.append(self._question(context, visuals, f"{key} #{self._num_asked[key]}", task))
        asked = [question for question in questions if question is not None]
        found = iter(self._harness.answer(asked, self._decoding(settings)))
        answers = ["" if question is None else next(found) for question in questions]
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("generate_until", (request.args[0], settings), answer)
        return answers

    def _decoding(self, settings: Mapping[str, Any]) -> Decoding:
        """Read `gen_kwargs`, without the stop text that no task asked for."""
        decoding = read_decoding(settings, self._harness.cfg)
        stops = tuple(text for text in decoding.until if text != FEW_SHOT_DELIMITER)
        return Decoding(decoding.max_new_tokens, decoding.sampling, stops)

    def _question(self, context: str, visuals: Any, key: str, task: str) -> Question | None:
        """Read what a question shows; None where a file is broken."""
        images: list[Image.Image] = []
        videos = 0
        try:
            for visual in _flat(visuals):
                found, is_video = ([visual], False) if isinstance(visual, Image.Image) else self._open(visual, key)
                images += found
                videos += is_video
            if videos and len(list(_flat(visuals))) > 1:
                raise SampleError(key, "mixed_media", "a video stands alone; several videos or pictures beside it")
        except SampleError as error:
            self._harness.skip(key, error)
            return None
        return Question(context, tuple(images), bool(videos), key, tiles_of(task, self._harness.cfg))

    def _open(self, visual: Any, key: str) -> tuple[list[Image.Image], bool]:
        """Read a picture or video that is a path."""
        if not isinstance(visual, (str, os.PathLike)):
            raise SampleError(key, "unknown_visual", f"a {type(visual).__name__} is neither picture nor path")
        return self._harness.read(Path(visual))


def _flat(visuals: Any) -> Iterator[Any]:
    """Yield pictures and paths out of nested lists; None and gaps are left out."""
    if isinstance(visuals, (list, tuple)):
        for visual in visuals:
            yield from _flat(visual)
    elif visuals is not None:
        yield visuals


def _local_device(values: Mapping[str, Any]) -> dict[str, Any]:
    """Give each process of a launcher its own GPU; without a launcher the values stay as they are."""
    device, local = values.get("device"), os.environ.get("LOCAL_RANK")
    if not local or device not in (None, "cuda") or not torch.cuda.is_available():
        return dict(values)
    return {**values, "device": f"cuda:{local}"}
