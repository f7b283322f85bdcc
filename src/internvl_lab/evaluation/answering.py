"""Ask a model all questions of a task, chunk by chunk, and log the answers.

::

    items ─ chunks ─ images, tiles, template ─> prompts ─ Generator ─> answers ─ judge of one answer ─> AnswerLog
              └ a question that cannot be asked is a line with its error, left out of the score and counted
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from internvl_lab.config import TilingConfig
from internvl_lab.errors import SampleError, TokenMismatchError
from internvl_lab.evaluation.answer_log import AnswerLog, Line
from internvl_lab.evaluation.items import Item
from internvl_lab.evaluation.metrics import CHOICE_METRICS, METRICS
from internvl_lab.evaluation.metrics.choices import read_choice
from internvl_lab.evaluation.metrics.pairs import options_of
from internvl_lab.evaluation.suites import Suite
from internvl_lab.inference.generation import Generator, Prompt
from internvl_lab.inference.processor import Processor
from internvl_lab.models.internvl import InternVL
from internvl_lab.text.template import ChatTemplate

logger = logging.getLogger(__name__)

BATCHES_PER_CHUNK = 4
"""Batches that are in memory, and lost at a kill, at once: enough to sort prompts by length."""


class Answerer:
    """Answer tasks with one model, greedily.

    Args:
        model: used on its own device and in its own dtype.
        template, tiling: those of its training.
        batch_size: prompts decoded side by side.
        blind: ask a second time with grey tiles.
    """

    def __init__(
        self, model: InternVL, template: ChatTemplate, tiling: TilingConfig, batch_size: int, blind: bool = False
    ) -> None:
        self.model, self.template, self.tiling = model, template, tiling
        self.batch_size, self.blind = batch_size, blind

    @property
    def chunk_size(self) -> int:
        """Return how many questions are asked and logged at once."""
        return BATCHES_PER_CHUNK * self.batch_size

    def settings(self, suite: Suite) -> dict[str, Any]:
        """Return what the answers to a task depend on, beside the weights."""
        return {
            "task": suite.name,
            "metric": suite.metric,
            "num_questions": len(suite.items),
            "questions": _hash(suite.items),
            "tiling": asdict(self.tiling),
            "max_tiles": suite.max_tiles,
            "tiles": suite.tiles,
            "max_new_tokens": suite.max_new_tokens,
            "decoding": "greedy",
            "batch_size": self.batch_size,
            "blind": self.blind,
            "template": self.template.fingerprint,
            "benchmark": dict(suite.settings),
        }

    def run(self, suite: Suite, log: AnswerLog, advance: Callable[[int], object] = lambda _: None) -> None:
        """Answer the questions that the log does not hold yet.

        Args:
            suite: the task.
            log: gets a line for each question.
            advance: called with the number of questions after each chunk.
        """
        generator = Generator(self.model, self.template, suite.max_new_tokens, self.batch_size)
        advance(len(log.lines))
        for start in range(len(log.lines), len(suite.items), self.chunk_size):
            chunk = suite.items[start : start + self.chunk_size]
            lines = self._answer(suite, chunk, generator)
            for line in lines:
                line["settings"] = log.stamp
            if start + len(chunk) == len(suite.items):
                lines[-1]["last"] = True
            log.append(lines)
            advance(len(chunk))

    def _answer(self, suite: Suite, chunk: Sequence[Item], generator: Generator) -> list[Line]:
        """Answer one chunk."""
        lines: list[Line] = [
            {"id": item.key, "question": item.question, "prediction": "", "reference": item.reference, "score": None}
            for item in chunk
        ]
        prompts: dict[int, Prompt] = {}
        for place, item in enumerate(chunk):
            try:
                prompts[place] = self._prompt(suite, item)
            except (SampleError, TokenMismatchError) as error:
                logger.warning("%s left out of %s: %s", item.key, suite.name, error)
                lines[place]["error"] = str(error)
        self._fill_in(suite, lines, prompts, generator, "")
        if self.blind:
            self._fill_in(suite, lines, prompts, generator, "blind_")
        return lines

    def _fill_in(
        self, suite: Suite, lines: list[Line], prompts: Mapping[int, Prompt], generator: Generator, prefix: str
    ) -> None:
        """Generate, and put answers and scores into the lines; outer white space goes, as in the authors' `chat`."""
        answers = generator.generate(list(prompts.values()), blind=bool(prefix))
        for place, answer in zip(prompts, answers, strict=True):
            line, text = lines[place], answer.strip()
            line[f"{prefix}prediction"] = text
            line[f"{prefix}score"] = score_one(suite.metric, text, line["reference"])

    def _prompt(self, suite: Suite, item: Item) -> Prompt:
        """Prepare one question.

        Raises:
            SampleError: it cannot be asked or scored.
        """
        check_item(suite.metric, item)
        images = item.load_images()
        processor = Processor(self.template, suite.tiling(self.tiling, len(images)))
        return processor(item.prompt(len(images)), images, item.is_video, item.key)


def _hash(items: Sequence[Item]) -> str:
    """Hash all questions and references: answers are found again by their place, so the file must be the same one."""
    asked = repr([(item.key, item.question, item.turns, item.reference) for item in items])
    return hashlib.sha256(asked.encode(errors="backslashreplace")).hexdigest()[:16]


def check_item(metric: str, item: Item) -> None:
    """Refuse a question that nobody could answer.

    Raises:
        SampleError: `empty_question`, or `missing_option` (a choice without options, or without the right one).
    """
    if not item.question.strip():
        raise SampleError(item.key, "empty_question", "the question has no text")
    if metric not in CHOICE_METRICS:
        return
    if not options_of(item.reference):
        raise SampleError(item.key, "missing_option", "a multiple-choice question has no options")
    if has_answer(item.reference):
        options, right = read_choice(item.reference)
        if right not in options:
            raise SampleError(
                item.key, "missing_option", f"the right option {right!r} is not among {', '.join(options)}"
            )


def has_answer(reference: Any) -> bool:
    """Say whether a reference can be scored; test sets come without answers."""
    if isinstance(reference, Mapping):
        return any(reference.get(name) not in (None, "", [], "?") for name in ("answer", "answers", "bbox", "label"))
    return bool(reference)


def score_one(metric: str, prediction: str, reference: Any) -> float | None:
    """Score one answer, 0 to 1; None where the metric needs all answers, a judge, or the reference has no answer."""
    judge = METRICS[metric][1] if metric in METRICS else None
    if judge is None or not has_answer(reference):
        return None
    return float(judge(prediction, reference))
