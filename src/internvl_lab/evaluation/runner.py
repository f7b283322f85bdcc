"""Run a model over the tasks of a folder of shards, with its pictures and without them.

::

    tasks ─ chunks of questions ─ Processor ─> prompts ─ Generator ─> answers
                                                     └─ Generator(blind) ─> answers to mid-grey tiles
      ─ judge ─> predictions/<task>.jsonl (a finished task is never repeated) ─> EvaluationResult
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from internvl_lab.config import EvaluationConfig, SamplingConfig, TilingConfig
from internvl_lab.errors import ConfigError, SampleError
from internvl_lab.evaluation.recompression import recompressed
from internvl_lab.evaluation.results import EvaluationResult, Example, Prediction, PredictionStore, TaskResult
from internvl_lab.evaluation.tasks import Question, Task, read_tasks
from internvl_lab.inference.generation import Generator, Prompt
from internvl_lab.inference.processor import Processor
from internvl_lab.models.internvl import InternVL
from internvl_lab.text.template import ChatTemplate

logger = logging.getLogger(__name__)

BATCHES_PER_CHUNK = 4
"""Batches whose prompts are in memory at once: enough to sort by length, few enough for any benchmark."""


def evaluate(
    model: InternVL,
    template: ChatTemplate,
    tiling: TilingConfig,
    shards_dir: Path | str,
    cfg: EvaluationConfig,
    *,
    predictions_dir: Path | None = None,
    progress: bool = False,
) -> EvaluationResult:
    """Answer every question of the chosen tasks and score the answers.

    Args:
        model: used on its own device and in its own dtype; its training mode is restored.
        template, tiling: those of training.
        shards_dir: held-out shards whose records carry `task` and `answer`.
        cfg: tasks, limits, and whether a blind run (every tile mid-grey) is scored beside; with `jpeg_quality`, its
            pictures are recompressed first.
        predictions_dir: where finished tasks are kept; a second call with the same weights and settings reuses them.
        progress: show a bar on the terminal.
    Raises:
        ConfigError: an unknown task.
        ShardError: no shards, or a broken one.
    """
    tasks, index = read_tasks(shards_dir, template, cfg.tasks, cfg.samples_per_task)
    if cfg.jpeg_quality is not None:
        tasks = [recompressed(task, cfg.jpeg_quality) for task in tasks]
    settings = {
        "weights": weights_fingerprint(model),
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "template": template.fingerprint,
        "data": index.fingerprint,
        "tiling": asdict(tiling),
        "decoding": f"temperature {cfg.temperature:g}" if cfg.temperature else "greedy",
        "max_new_tokens": cfg.max_new_tokens,
        "samples_per_task": cfg.samples_per_task,
        "blind": cfg.blind,
        **({} if cfg.jpeg_quality is None else {"jpeg_quality": cfg.jpeg_quality}),
    }
    store = PredictionStore(predictions_dir, settings)
    generator = Generator(model, template, cfg.max_new_tokens, cfg.batch_size)
    runner = TaskRunner(Processor(template, tiling), generator, cfg)
    with progress_bar(progress) as bar:
        results = tuple(runner.run(task, store, bar) for task in tasks)
    examples = [e for task, result in zip(tasks, results, strict=True) for e in pick_examples(task, result)]
    return EvaluationResult(results, {**settings, "shards": str(shards_dir)}, tuple(examples))


class TaskRunner:
    """Answer tasks one after the other.

    Args:
        processor: prepares the prompts.
        generator: answers them.
        cfg: batch size, temperature, and whether a blind run is made beside.
    """

    def __init__(self, processor: Processor, generator: Generator, cfg: EvaluationConfig) -> None:
        self.processor, self.generator, self.cfg = processor, generator, cfg

    def run(self, task: Task, store: PredictionStore, bar: Progress) -> TaskResult:
        """Answer one task, or take its predictions from the store."""
        predictions = store.load(task.name)
        bar_task = bar.add_task(task.name, total=len(task.questions))
        if predictions is None:
            predictions = tuple(self.predict(task, lambda n: bar.advance(bar_task, n)))
            store.save(task.name, predictions)
        else:
            logger.info("%s: finished before, %d predictions reused", task.name, len(predictions))
        bar.update(bar_task, completed=len(task.questions))
        result = TaskResult(task.name, task.metric, predictions)
        logger.info("%s: score %.3f, blind %s, n %d", task.name, result.score, result.blind, result.n)
        return result

    def predict(self, task: Task, advance: Callable[[int], object] = lambda _: None) -> Iterator[Prediction]:
        """Answer the questions of a task chunk by chunk, in order.

        Args:
            task: what is asked.
            advance: called with the number of questions after each chunk.
        """
        size = BATCHES_PER_CHUNK * self.cfg.batch_size
        for start in range(0, len(task.questions), size):
            chunk = task.questions[start : start + size]
            yield from self._predict_chunk(task, chunk)
            advance(len(chunk))

    def _predict_chunk(self, task: Task, questions: Sequence[Question]) -> list[Prediction]:
        """Answer some questions; one that cannot be read becomes a counted skip."""
        prompts: dict[int, Prompt] = {}
        predictions = [Prediction(q.key, q.text, q.reference, "", False) for q in questions]
        for i, question in enumerate(questions):
            try:
                prompts[i] = self.processor(question.turns, question.load_images(), question.is_video, question.key)
            except SampleError as error:
                logger.warning("%s left out of %s: %s", question.key, task.name, error)
                predictions[i] = replace(predictions[i], error=str(error))
        answers = self._answer(prompts)
        for i, text in answers.items():
            right = task.judge(text, questions[i].reference)
            predictions[i] = replace(predictions[i], prediction=text, correct=right)
        if self.cfg.blind:
            for i, text in self._answer_blind(prompts, answers).items():
                right = task.judge(text, questions[i].reference)
                predictions[i] = replace(predictions[i], blind_prediction=text, blind_correct=right)
        return predictions

    def _answer(self, prompts: dict[int, Prompt], blind: bool = False) -> dict[int, str]:
        """Answer prompts by their number."""
        if not self.cfg.temperature:
            texts = self.generator.generate(list(prompts.values()), blind=blind)
        else:
            sampling = SamplingConfig(temperature=self.cfg.temperature)
            texts = [drawn[0].text for drawn in self.generator.sample(list(prompts.values()), sampling, blind)]
        return dict(zip(prompts, texts, strict=True))

    def _answer_blind(self, prompts: dict[int, Prompt], answers: dict[int, str]) -> dict[int, str]:
        """Answer with grey tiles; a prompt without tiles keeps its answer, there is nothing to blank."""
        return {**answers, **self._answer({i: p for i, p in prompts.items() if p.num_tiles}, blind=True)}


def pick_examples(task: Task, result: TaskResult) -> list[Example]:
    """Pick the first answered question of a task and the first whose outcome differs, and read their pictures.

    The rule is blind to quality, so that a contact sheet shows no better model than there is.
    """
    questions = {q.key: q for q in task.questions}
    shown: list[Prediction] = []
    for prediction in result.answered:
        if all(prediction.correct != other.correct for other in shown):
            shown.append(prediction)
    return [Example(task.name, p, tuple(questions[p.key].load_images())) for p in shown]


def weights_fingerprint(model: torch.nn.Module) -> str:
    """Hash names, types, shapes and bytes of all tensors; 16 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def move_to_device(model: InternVL, device: str) -> InternVL:
    """Put a model onto a device, in eval mode; `auto` takes the GPU where there is one.

    Raises:
        ConfigError: no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return model.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={device}: {' '.join(str(error).split())}") from error


def progress_bar(enabled: bool) -> Progress:
    """Make a bar a task on the terminal; silent when not enabled."""
    columns: list[Any] = [
        TextColumn("{task.description:>12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    ]
    return Progress(*columns, disable=not enabled)
