"""Sets that need a judge: write what the judge has to read, and read its scores back.

::

    predictions/<task>.jsonl ─ write_judge_file ─> judge/<task>.jsonl ─ any judge, by hand or by program ─> answers
    answers (JSONL: task, id, score) ─ read_judge_answers ─> {task: {id: score}} ─> the report

Nothing here opens a connection; `judging.opinions` does, where `judge.url` names a judge.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from internvl_lab.atomic import write_atomic
from internvl_lab.errors import ConfigError
from internvl_lab.evaluation.answer_log import Line
from internvl_lab.evaluation.judging.protocols import Protocol, protocol_of, read_prompt
from internvl_lab.evaluation.suites import Suite


def write_judge_file(path: Path, suite: Suite, lines: Sequence[Line]) -> Path:
    """Write one JSON line a question: task, id, scale, question, reference, prediction, and the judge's prompt.

    The prompt is the benchmark's official one (`judging.protocols`), else a plain one of ours.

    Returns:
        `path`.
    """
    settings = dict(suite.settings)
    scale = str(settings.get("judge_metric") or "0..1")
    protocol = protocol_of(suite.name, settings)
    rows = [_judge_row(suite.name, scale, line, protocol) for line in lines if not line.get("error")]
    return write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _judge_row(task: str, scale: str, line: Line, protocol: Protocol) -> dict[str, Any]:
    """Build one line for the judge."""
    reference = line["reference"].get("answer", "") if isinstance(line["reference"], Mapping) else line["reference"]
    return {
        "task": task,
        "id": line["id"],
        "scale": scale,
        "question": line["question"],
        "reference": reference,
        "prediction": line["prediction"],
        "system": read_prompt(protocol.system) if protocol.system else "",
        "prompt": protocol.prompt(line),
    }


def read_judge_answers(path: Path) -> dict[str, dict[str, float]]:
    """Read a judge's scores.

    Args:
        path: JSONL with `task`, `id` and `score` (a number, on the benchmark's own scale) in each line.
    Returns:
        Task -> question -> score.
    Raises:
        ConfigError: the file is missing, or a line is not of this form; names the line.
    """
    if not path.is_file():
        raise ConfigError(f"judge_answers={path} does not exist")
    answers: dict[str, dict[str, float]] = {}
    for number, text in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
            if row["score"] is None:  # the judge refused this one
                continue
            score = float(row["score"])
            if not math.isfinite(score):
                raise ValueError(score)
            answers.setdefault(str(row["task"]), {})[str(row["id"])] = score
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path}, line {number}: a judge's answer needs task, id and a number as score"
            ) from error
    return answers
