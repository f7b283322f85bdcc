"""Ask every question in every way a run compares, and keep all answers.

::

    checkpoints ─ one after the other ─> arms: direct (greedy) · cot (greedy) · samples (N drawn)
      problems ─ chunks ─ Problem.asked ─ Processor ─> prompts ─ Generator.sample ─ extract, judge ─> Record
                                                                                     samples.jsonl (appended)
    samples of all checkpoints ─ critic ─> scores.jsonl ─> results.summarise
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from internvl_lab.config import ModelConfig, SamplingConfig, TestTimeConfig
from internvl_lab.errors import SampleError
from internvl_lab.inference.generation import GREEDY, Answer, Generator, Prompt
from internvl_lab.inference.processor import Processor
from internvl_lab.inference.test_time.answers import extract
from internvl_lab.inference.test_time.critics import Critic, LogprobCritic, Scores, VerdictCritic
from internvl_lab.inference.test_time.problem import Problem
from internvl_lab.inference.test_time.samples import (
    PLACE,
    JsonlFile,
    Place,
    Record,
    Sample,
    SampleStore,
    forward_flops,
)
from internvl_lab.text.repetition import measure_repetition

logger = logging.getLogger(__name__)

SAMPLES = "samples"
"""Name of the arm whose answers are drawn."""


@dataclass(frozen=True)
class Arm:
    """Name one way of asking: `direct`, `cot` (both greedy) or `samples`."""

    name: str
    prompt: str
    sampling: SamplingConfig


class Respondent(NamedTuple):
    """Hold a model that answers, and what prepares its prompts."""

    generator: Generator
    processor: Processor


def arms_of(config: TestTimeConfig) -> list[Arm]:
    """List what a run asks: always directly, with steps where wanted, and the drawn answers."""
    arms = [Arm("direct", "direct", GREEDY)]
    if config.prompt == "cot":
        arms.append(Arm("cot", "cot", GREEDY))
    if config.samples:
        arms.append(Arm(SAMPLES, config.prompt, config.sampling))
    return arms


def collect(
    config: TestTimeConfig,
    problems: Sequence[Problem],
    load: Callable[[str], Respondent],
    store: SampleStore,
    progress: bool = False,
) -> None:
    """Answer all problems with all checkpoints, in all arms; what the store holds already is not repeated.

    Args:
        config: checkpoints, arms, limits.
        problems: the questions; the keys of one task are different.
        load: opens a checkpoint; called only where something is left to do, and one model is held at a time.
        store: keeps the records.
        progress: show a bar on the terminal.
    """
    for checkpoint in config.checkpoint:
        todo = {arm: _chunks(config, checkpoint, arm, problems, store) for arm in arms_of(config)}
        if not any(todo.values()):
            logger.info("%s: all answers are there", checkpoint)
            continue
        respondent = load(checkpoint)
        for arm, chunks in todo.items():
            with _bar(f"{arm.name} {checkpoint}", sum(map(len, chunks)), progress) as advance:
                for chunk in chunks:
                    records = _answer(respondent, checkpoint, arm, chunk)
                    store.add([record for record in records if record.place not in store.records])
                    advance(len(chunk))


def judge(
    config: TestTimeConfig,
    problems: Sequence[Problem],
    load: Callable[[str], Respondent],
    store: SampleStore,
    progress: bool = False,
) -> dict[Place, Scores]:
    """Let the critic score all drawn answers; what `scores.jsonl` holds already is not repeated.

    Args:
        config, problems, load, store, progress: as in `collect`.
    Returns:
        Place of each record of drawn answers to its scores, one a sample.
    """
    asked = {(problem.task, problem.key): problem for problem in problems}
    drawn = [r for r in store.records.values() if r.arm == SAMPLES and r.samples and (r.task, r.key) in asked]
    if config.judging_critic is None:
        return {r.place: LogprobCritic().score(asked[r.task, r.key], r.samples) for r in drawn}
    file = JsonlFile(store.folder / "scores.jsonl")
    known = {_place(row): Scores(tuple(row["scores"]), row["flops"]) for row in file.rows}
    for name in config.checkpoint if config.judging_critic == "self" else (config.judging_critic,):
        # a model judges its own answers, or one judges all
        mine = [r for r in drawn if config.judging_critic != "self" or r.checkpoint == name]
        left = [r for r in mine if r.place not in known]
        if not left:
            continue
        critic: Critic = VerdictCritic(*load(name))
        with _bar(f"critic {name}", len(left), progress) as advance:
            for record in left:
                scores = critic.score(asked[record.task, record.key], record.samples)
                file.append([dict(zip(PLACE, record.place, strict=True)) | asdict(scores)])
                known[record.place] = scores
                advance(1)
    return {r.place: known[r.place] for r in drawn}


def _place(row: Mapping[str, Any]) -> Place:
    """Read the place of a line."""
    checkpoint, arm, task, key = (str(row[name]) for name in PLACE)
    return checkpoint, arm, task, key


def _chunks(
    config: TestTimeConfig, checkpoint: str, arm: Arm, problems: Sequence[Problem], store: SampleStore
) -> list[Sequence[Problem]]:
    """Cut the problems into chunks and list those that are not complete.

    Chunks lie at fixed places and are answered whole, also where a kill left half of one: the last digits of a
    log-probability depend on the batch, and a resumed run shall leave the same bytes.
    """
    size = max(1, 2 * config.batch_size // arm.sampling.num_samples)
    chunks = [problems[start : start + size] for start in range(0, len(problems), size)]
    return [c for c in chunks if any((checkpoint, arm.name, p.task, p.key) not in store.records for p in c)]


def _answer(respondent: Respondent, checkpoint: str, arm: Arm, problems: Sequence[Problem]) -> list[Record]:
    """Answer some problems; one that cannot be asked becomes a counted skip."""
    prompts: dict[int, Prompt] = {}
    errors: dict[int, str] = {}
    for i, problem in enumerate(problems):
        try:
            key = f"{problem.task}/{problem.key}"
            turns = problem.asked(arm.prompt)
            prompts[i] = respondent.processor(turns, problem.load_images(), problem.is_video, key)
        except SampleError as error:
            logger.warning("%s left out of %s: %s", problem.key, problem.task, error)
            errors[i] = str(error)
    answers = dict(zip(prompts, respondent.generator.sample(list(prompts.values()), arm.sampling), strict=True))
    records = []
    for i, problem in enumerate(problems):
        record = Record(checkpoint, arm.name, problem.task, problem.key, problem.question, problem.reference, ())
        if i in errors:
            records.append(replace(record, error=errors[i]))
            continue
        length, tiles = len(prompts[i].input_ids), prompts[i].num_tiles
        config = respondent.generator.model.config
        samples = tuple(_sample(problem, arm, answer, length, config) for answer in answers[i])
        flops = forward_flops(config, length, tiles)
        records.append(replace(record, samples=samples, prompt_tokens=length, num_tiles=tiles, prompt_flops=flops))
    return records


def _sample(problem: Problem, arm: Arm, answer: Answer, prompt_tokens: int, config: ModelConfig) -> Sample:
    """Read and judge one answer."""
    found = extract(answer.text, problem.question, worked=arm.prompt == "cot")
    count = len(answer.logprobs)
    # the last token is chosen, not fed
    flops = forward_flops(config, count - 1, rows=count - 1, behind=prompt_tokens)
    return Sample(
        text=answer.text,
        answer=found.text,
        how=found.how,
        right=bool(found.text) and problem.judge(found.text, problem.reference),
        num_tokens=count,
        mean_logprob=answer.mean_logprob,
        ended=answer.ended,
        looping=measure_repetition(answer.text).looping,
        flops=flops,
    )


@contextmanager
def _bar(title: str, total: int, enabled: bool) -> Iterator[Callable[[int], None]]:
    """Show a progress bar where enabled; yields what advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not enabled) as progress:
        bar = progress.add_task(title, total=total)
        yield lambda count: progress.advance(bar, count)
