"""Ask held-out questions while a stage trains, and leave training as if nobody had asked.

::

    after every n-th optimizer step, before its row of metrics is written:
      tasks ─ questions r, r + R, ... on rank r of R ─ TaskRunner ─> predictions ─ gathered ─> TaskResult
        ├─> val/<task>/score, val/score, val/looping    in the row of the step, beside its `tokens` (CSV and W&B)
        └─> validation/<stage>/step_<n>/   predictions.jsonl, samples.png; W&B: val/samples and val/predictions

Nothing that training depends on moves: no gradient is computed, all random states and the mode of every module are
put back, the loader is not touched. Weights and losses are those of a run without it, bit for bit. A checkpoint is
taken after the row is written, so a resumed run repeats no round that its checkpoint has seen.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from internvl_lab.atomic import write_atomic
from internvl_lab.config import EvaluationConfig, RunConfig, ValidationConfig
from internvl_lab.errors import ConfigError
from internvl_lab.evaluation.contact_sheet import draw_contact_sheet, show_question
from internvl_lab.evaluation.results import EvaluationResult, Example, Prediction, TaskResult
from internvl_lab.evaluation.runner import TaskRunner, pick_examples
from internvl_lab.evaluation.tasks import Task, read_tasks
from internvl_lab.inference.generation import Generator
from internvl_lab.inference.processor import Processor
from internvl_lab.text.template import ChatTemplate
from internvl_lab.tracking import WandbLog
from internvl_lab.training import FSDP2, InternVLModule, ThroughputMonitor, Watchdog
from internvl_lab.training.module import as_step_module

log = logging.getLogger(__name__)

FOLDER = "validation"
COLUMNS = ("stage", "step", "tokens", "task", "question", "reference", "prediction", "correct", "picture")


def build_validation(config: RunConfig, template: ChatTemplate, shards: str | None, run_dir: Path) -> list[L.Callback]:
    """Build the callback that `callbacks.validation` asks for; none where it is off.

    Args:
        config: of the run.
        template: of the training.
        shards: held-out shards; None = the run has none.
        run_dir: folder of the run.
    Raises:
        ConfigError: FSDP2, no held-out shards, or a task that they do not hold.
        ShardError: broken shards.
    """
    cfg = config.callbacks.validation
    if cfg.every_steps is None:
        return []
    key = f"callbacks.validation.every_steps={cfg.every_steps}"
    if config.trainer.get("strategy") == FSDP2:
        raise ConfigError(
            f"{key}: answers cannot be generated from sharded weights, so with trainer.strategy={FSDP2} it must be null"
        )
    if shards is None:
        raise ConfigError(f"{key} needs held-out shards: name them in data.mixtures.val, or set it to null")
    tasks, _ = read_tasks(shards, template, cfg.tasks, cfg.samples_per_task, key="callbacks.validation.tasks")
    return [Validation(cfg, config.evaluation, tasks, Processor(template, config.tiling), run_dir)]


class Validation(L.Callback):
    """Score tasks every `cfg.every_steps` optimizer steps; stands behind the monitors and before the metrics' writer.

    Under DDP the ranks share the questions. For the clock of `ThroughputMonitor` and for the watchdog a round is a
    validation: no step time, and a sign of life after each task.

    Args:
        cfg: how often, and how many answers are kept with their pictures.
        decoding: limits of an answer, batch size, temperature; without a blind run.
        tasks: what is asked.
        processor: template and tiling of the training.
        run_dir: folder of the run.
    """

    def __init__(
        self,
        cfg: ValidationConfig,
        decoding: EvaluationConfig,
        tasks: Sequence[Task],
        processor: Processor,
        run_dir: Path,
    ) -> None:
        self.every_steps, self.max_pictures = cfg.every_steps, cfg.max_pictures
        self.decoding = replace(decoding, blind=False)
        self.tasks, self.processor = tuple(tasks), processor
        self.folder = Path(run_dir) / FOLDER

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Tell W&B to draw the scores over tokens."""
        keys = ["val/score", "val/looping", *(f"val/{task.name}/score" for task in self.tasks)]
        for logger in _wandb_logs(trainer):
            logger.draw_over(keys, "tokens")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ask, when the step that has just ended is due."""
        module = as_step_module(pl_module)
        if self.every_steps is None or not module.ends_step(batch_idx) or trainer.global_step % self.every_steps:
            return
        start = time.monotonic()
        with _watched(trainer, module) as sign_of_life, _undisturbed(module):
            result = self._ask(trainer, module, sign_of_life)
            if not trainer.is_global_zero:
                return
            module.metrics.update(_metrics(result))
            self._keep(trainer, module, result)
        scores = ", ".join(f"{task.name} {task.score:.3f}" for task in result.tasks)
        log.info("validation after step %d: %s (%.1f s)", trainer.global_step, scores, time.monotonic() - start)

    def _ask(self, trainer: L.Trainer, module: InternVLModule, sign_of_life: Callable[[], None]) -> EvaluationResult:
        """Answer this rank's questions, and put those of all ranks together; the same on all of them."""
        rank, ranks = trainer.global_rank, trainer.world_size
        limits = (self.decoding.max_new_tokens, self.decoding.batch_size)
        generator = Generator(module.model, self.processor.template, *limits)
        runner = TaskRunner(self.processor, generator, self.decoding)
        mine: list[list[Prediction]] = []
        with trainer.precision_plugin.forward_context(), _uncompiled(module):
            for task in self.tasks:
                mine.append(list(runner.predict(replace(task, questions=task.questions[rank::ranks]))))
                sign_of_life()
        parts = _gather(mine, ranks)
        results = []
        for number, task in enumerate(self.tasks):
            shares = zip_longest(*(part[number] for part in parts))
            predictions = tuple(p for p in chain.from_iterable(shares) if p is not None)
            results.append(TaskResult(task.name, task.metric, predictions))
        return EvaluationResult(tuple(results))

    def _keep(self, trainer: L.Trainer, module: InternVLModule, result: EvaluationResult) -> None:
        """Write the predictions and some of the pictures; show them in W&B."""
        folder = self.folder / module.stage.name / f"step_{trainer.global_step:08d}"
        rows = [{"task": task.name, **asdict(p)} for task in result.tasks for p in task.predictions]
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "predictions.jsonl", "".join(lines))
        examples = self._examples(result)
        if not examples:
            return
        sheet = folder / "samples.png"
        draw_contact_sheet(examples).save(sheet)
        for logger in _wandb_logs(trainer):
            logger.log_images("val/samples", [sheet])
            place = (module.stage.name, trainer.global_step, module.metrics.get("tokens"))
            logger.log_rows(
                "val/predictions", COLUMNS, [_table_row(place, e, folder / f"{i}.png") for i, e in enumerate(examples)]
            )

    def _examples(self, result: EvaluationResult) -> list[Example]:
        """Pick at most `max_pictures` answers: one of each task, then a second one that turned out the other way."""
        if not self.max_pictures:
            return []
        found = (pick_examples(task, of) for task, of in zip(self.tasks, result.tasks, strict=True))
        return [e for e in chain.from_iterable(zip_longest(*found)) if e is not None][: self.max_pictures]


def _metrics(result: EvaluationResult) -> dict[str, float]:
    """Name the scores as the step's row holds them."""
    scores = {f"val/{task.name}/score": task.score for task in result.tasks}
    return {**scores, "val/score": result.score, "val/looping": result.looping}


def _table_row(place: Sequence[Any], example: Example, picture: Path) -> list[Any]:
    """Return one row of W&B's table; the example is drawn into `picture`, all frames of a video together."""
    draw_contact_sheet([example]).save(picture)
    shown = example.prediction
    question = show_question(shown.question)
    return [*place, example.task, question, shown.reference, shown.prediction, shown.correct, picture]


def _wandb_logs(trainer: L.Trainer) -> list[WandbLog]:
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLog)]


def _gather(mine: list[list[Prediction]], ranks: int) -> list[list[list[Prediction]]]:
    """Collect the predictions of all ranks, in the order of ranks."""
    if ranks == 1:
        return [mine]
    parts: list[Any] = [None] * ranks
    torch.distributed.all_gather_object(parts, mine)
    return parts


@contextmanager
def _undisturbed(module: nn.Module) -> Iterator[None]:
    """Put back the mode of every module (frozen parts run in eval mode) and the random states of all libraries."""
    modes = [(part, part.training) for part in module.modules()]
    with isolate_rng():
        try:
            yield
        finally:
            for part, training in modes:
                part.training = training


@contextmanager
def _watched(trainer: L.Trainer, module: InternVLModule) -> Iterator[Callable[[], None]]:
    """Stop the step clock; yields what tells the watchdog that the run is alive."""
    watchers = [c for c in trainer.callbacks if isinstance(c, ThroughputMonitor | Watchdog)]  # type: ignore[attr-defined]
    for watcher in watchers:
        watcher.on_validation_start(trainer, module)

    def sign_of_life() -> None:
        """Say that something has been finished."""
        for watcher in watchers:
            watcher.on_validation_batch_end(trainer, module, None, None, 0)

    try:
        yield sign_of_life
    finally:
        for watcher in watchers:
            watcher.on_validation_end(trainer, module)


def _uncompiled(module: InternVLModule) -> Any:
    """Run layers eagerly inside: the many lengths of generation would use up torch.compile's recompilations."""
    return nullcontext() if module.compile_backend is None else torch.compiler.set_stance("force_eager")
