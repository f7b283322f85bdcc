"""`test-time`: draw many answers to each question, vote or re-rank, and plot what it buys (`conf/test_time.yaml`)."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from internvl_lab.config import TestTimeConfig
    from internvl_lab.evaluation import Question, Task
    from internvl_lab.inference import Processor
    from internvl_lab.inference.test_time import Problem, Respondent


def configure(parser: argparse.ArgumentParser) -> None:
    """Take Hydra overrides."""
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="checkpoint=DIR out=DIR tasks=[a,b] samples=8 ..."
    )


def execute(args: argparse.Namespace) -> None:
    """Answer, judge, summarise; write samples, curves and report."""
    from pathlib import Path

    from rich.console import Console

    from internvl_lab.api import load
    from internvl_lab.config.compose import compose_test_time
    from internvl_lab.inference.test_time import SampleStore, collect, judge, summarise, write_report
    from internvl_lab.inference.test_time.report import result_table

    config = compose_test_time(args.overrides)
    processor = load(config.checkpoint[0])[1]
    folder = _shards(config)
    problems = _problems(config, folder, processor)
    settings = _settings(config, folder, processor, problems)
    store = SampleStore(Path(config.out), settings)
    progress = sys.stderr.isatty()
    collect(config, problems, lambda name: _open(config, name), store, progress)
    scores = judge(config, problems, lambda name: _open(config, name), store, progress)
    results = summarise(config, store.records, scores)
    paths = write_report(config, results, list(store.records.values()), settings)
    console = Console()
    console.print(result_table(results[0]))
    for name, path in paths.items():
        console.print(f"{name:<8} {path}", soft_wrap=True, markup=False, highlight=False)


def _open(config: TestTimeConfig, checkpoint: str) -> Respondent:
    """Load one checkpoint."""
    from internvl_lab.api import load
    from internvl_lab.inference import Generator
    from internvl_lab.inference.test_time import Respondent

    model, processor = load(checkpoint)
    return Respondent(Generator(model, processor.template, config.max_new_tokens, config.batch_size), processor)


def _shards(config: TestTimeConfig) -> Path:
    """Find the held-out shards; without any, generate miniworld's `val` for the tasks, as many questions as asked."""
    import hashlib
    from pathlib import Path

    from internvl_lab.config import MiniworldConfig
    from internvl_lab.data.miniworld import TASKS, ensure_shards

    if config.data is not None:
        return Path(config.data)
    tasks = config.tasks or TASKS
    number = len(tasks) * config.samples_per_task
    settings = MiniworldConfig(num_pretrain=0, num_finetune=0, num_val=number, tasks=tasks)
    name = hashlib.blake2b(repr(settings).encode(), digest_size=4).hexdigest()
    return ensure_shards(settings, Path(config.data_dir) / f"miniworld-{name}")["val"]


def _problems(config: TestTimeConfig, folder: Path, processor: Processor) -> list[Problem]:
    """Read the questions of all tasks."""
    from internvl_lab.evaluation import read_tasks

    tasks, _ = read_tasks(folder, processor.template, config.tasks, config.samples_per_task)
    return [_problem(task, question) for task in tasks for question in task.questions]


def _problem(task: Task, question: Question) -> Problem:
    from internvl_lab.inference.test_time import Problem

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
    import hashlib
    from dataclasses import asdict

    from internvl_lab.api import weights_folder
    from internvl_lab.checkpoints.tensors import sha256_of
    from internvl_lab.tracking.identity import package_versions

    judging = config.judging_critic
    models = [*config.checkpoint, *([judging] if judging not in (None, "self") else [])]
    questions = repr([(p.task, p.key, p.turns, p.reference) for p in problems])
    return {
        **{name: value for name, value in asdict(config).items() if name not in ("out", "data_dir", "batch_size")},
        "data": str(folder) if config.data else "miniworld",
        "questions": hashlib.sha256(questions.encode()).hexdigest()[:16],
        "weights": {str(name): sha256_of(weights_folder(str(name)))[:16] for name in models},
        "template": processor.template.fingerprint,
        "versions": {k: v for k, v in package_versions().items() if k in ("torch", "transformers", "numpy")},
    }
