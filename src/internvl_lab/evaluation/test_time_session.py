"""Draw many answers to each question of the held-out tasks, judge and count them: one test-time scaling run.

::

    TestTimeConfig ─ tasks ─> problems ─ every checkpoint ─> samples.jsonl ─ critic ─> scores.jsonl
                   ─ summarise ─> report.md curves.json curves.png
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

from internvl_lab.atomic import held
from internvl_lab.checkpoints import load_model, load_processor, resolve_source
from internvl_lab.checkpoints.tensors import sha256_of
from internvl_lab.config import MiniworldConfig, TestTimeConfig
from internvl_lab.data.miniworld import TASKS, ensure_shards, miniworld_root
from internvl_lab.errors import MissingWeightsError
from internvl_lab.evaluation.tasks import Question, Task, read_tasks
from internvl_lab.inference import Generator, Processor
from internvl_lab.inference.test_time import (
    Problem,
    Respondent,
    Result,
    SampleStore,
    collect,
    judge,
    summarise,
    write_report,
)
from internvl_lab.tracking import package_versions


def scale_test_time(config: TestTimeConfig, progress: bool = False) -> tuple[list[Result], dict[str, Path]]:
    """Answer, judge, summarise; write samples, curves and report. What an earlier, killed run answered is kept.

    Args:
        config: what is asked of whom, and where everything goes.
        progress: show bars on the terminal.
    Returns:
        (results, the whole run first; name to path of everything written).
    Raises:
        InternVLLabError: one of its subclasses, with one clear sentence.
    """
    processor = _processor(config.checkpoint[0])
    folder = _shards(config)
    problems = _problems(config, folder, processor)
    settings = _settings(config, folder, processor, problems)
    with held(Path(config.out), "out"):
        store = SampleStore(Path(config.out), settings)
        collect(config, problems, lambda name: _open(config, name), store, progress)
        scores = judge(config, problems, lambda name: _open(config, name), store, progress)
        results = summarise(config, store.records, scores)
        return results, write_report(config, results, list(store.records.values()), settings)


def checkpoint_folder(source: str) -> Path:
    """Find the weights that a run folder, a weights folder or `asset:NAME` stands for.

    Raises:
        MissingWeightsError: nothing there.
        CheckpointError: a run folder without a finished stage.
    """
    try:
        return resolve_source(source)
    except MissingWeightsError as error:
        raise MissingWeightsError(f"no checkpoint in {source}: name a run, a weights folder or asset:NAME") from error


def _processor(checkpoint: str) -> Processor:
    template, tiling = load_processor(checkpoint_folder(checkpoint))
    return Processor(template, tiling)


def _open(config: TestTimeConfig, checkpoint: str) -> Respondent:
    """Load one checkpoint."""
    model = load_model(checkpoint_folder(checkpoint), attention="auto", dtype="float32").eval()
    processor = _processor(checkpoint)
    return Respondent(Generator(model, processor.template, config.max_new_tokens, config.batch_size), processor)


def _shards(config: TestTimeConfig) -> Path:
    """Find the held-out shards; without any, generate miniworld's `val` for the tasks, as many questions as asked."""
    if config.data is not None:
        return Path(config.data)
    tasks = config.tasks or TASKS
    number = len(tasks) * config.samples_per_task
    settings = MiniworldConfig(num_pretrain=0, num_finetune=0, num_val=number, tasks=tasks)
    return ensure_shards(settings, miniworld_root(settings, config.data_dir))["val"]


def _problems(config: TestTimeConfig, folder: Path, processor: Processor) -> list[Problem]:
    """Read the questions of all tasks."""
    tasks, _ = read_tasks(folder, processor.template, config.tasks, config.samples_per_task)
    return [_problem(task, question) for task in tasks for question in task.questions]


def _problem(task: Task, question: Question) -> Problem:
    return Problem(
        task.name,
        question.key,
        question.turns,
        question.reference,
        task.judge,
        question.load_images,
        question.is_video,
    )


def _settings(config: TestTimeConfig, folder: Path, processor: Processor, problems: list[Problem]) -> dict[str, object]:
    """List everything that the answers depend on."""
    judging = config.judging_critic
    models = [*config.checkpoint, *([judging] if judging not in (None, "self") else [])]
    questions = repr([(p.task, p.key, p.turns, p.reference) for p in problems])
    return {
        **{name: value for name, value in asdict(config).items() if name not in ("out", "data_dir", "batch_size")},
        "data": str(folder) if config.data else "miniworld",
        "questions": hashlib.sha256(questions.encode()).hexdigest()[:16],
        "weights": {str(name): sha256_of(checkpoint_folder(str(name)))[:16] for name in models},
        "template": processor.template.fingerprint,
        "versions": {k: v for k, v in package_versions().items() if k in ("torch", "transformers", "numpy")},
    }
