"""Ask a judge about the answers to one task, and keep what it said.

::

    lines of the answer log ─ Protocol.prompt ─> Question ─ Asker (cache, retries, budget) ─> words ─ Protocol.parse ─┐
                                ▲                                                                                      │
                                └─ next Try: temperature, suffix ── not readable, no try left: Protocol.unread <───────┤
    judge/<task>.answers.jsonl  {"task", "id", "score", "reply", "tries"} <────────────────────────────────────────────┘
          <task>.judge.json     judge, source, system prompt, decoding

Every paid answer is in `judge.sqlite` at once (`text.judging.answer_store`), so a killed run pays nothing twice and
writes the same files. `judge_answers=` reads the answers file.
"""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image

from internvl_lab.atomic import write_atomic
from internvl_lab.config.asking import AskingConfig
from internvl_lab.evaluation.answer_log import Line
from internvl_lab.evaluation.judging.protocols import Opinions, Protocol, Try, protocol_of, read_prompt
from internvl_lab.evaluation.suites import Suite
from internvl_lab.text.judging.answer_store import AnswerStore
from internvl_lab.text.judging.asking import Asker
from internvl_lab.text.judging.http_judge import ChatJudge
from internvl_lab.text.judging.judge import Question, Reply

logger = logging.getLogger(__name__)

CACHE = "judge.sqlite"
CHUNK = 64
"""Questions whose pictures are in memory at once."""
JPEG_QUALITY = 95


def ask_judge(config: AskingConfig, suite: Suite, lines: Sequence[Line], folder: Path) -> Opinions:
    """Judge all answers of a task.

    Args:
        config: the judge; its answer limit is the protocol's.
        suite: the task.
        lines: its answers; those with an error are left out.
        folder: `judge/`; gets the cache and the task's files.
    Returns:
        The scores, without the questions that the judge refuses (they are logged and counted).
    Raises:
        JudgeError: the judge cannot be used; BudgetError: its budget is used up. What was answered is kept.
    """
    protocol = protocol_of(suite.name, dict(suite.settings))
    rows: list[dict[str, Any]] = []
    asked = [line for line in lines if not line.get("error")]
    store = AnswerStore(Path(config.cache) if config.cache else folder / CACHE)
    try:
        panel = [_asker(config, protocol, number, store) for number in range(len(protocol.tries))]
        for start in range(0, len(asked), CHUNK):
            rows += _judge_chunk(suite, protocol, asked[start : start + CHUNK], panel)
    finally:
        store.close()
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomic(folder / f"{suite.name}.answers.jsonl", text)
    write_atomic(folder / f"{suite.name}.judge.json", json.dumps(describe(config, protocol), indent=1) + "\n")
    scores = {row["id"]: row["score"] for row in rows if row["score"] is not None}
    if len(scores) < len(asked):
        logger.warning("%s: %d answers have no score of the judge", suite.name, len(asked) - len(scores))
    return Opinions(scores, f"{config.model}, as {protocol.source}")


def describe(config: AskingConfig, protocol: Protocol) -> dict[str, Any]:
    """Return what a judge's scores depend on, for the record; the address and the key stay out."""
    return {
        "judge": config.model,
        "protocol": protocol.source,
        "system": read_prompt(protocol.system) if protocol.system else "",
        "max_answer_tokens": protocol.max_answer_tokens,
        "request": {**protocol.request, **config.request},
        "tries": [asdict(one) for one in protocol.tries],
    }


def _asker(config: AskingConfig, protocol: Protocol, number: int, store: AnswerStore) -> Asker:
    """Build what asks a try's questions; the same prompt in another try is another question to the cache."""
    request = {"temperature": protocol.tries[number].temperature, **protocol.request, **config.request}
    own = replace(config, max_answer_tokens=protocol.max_answer_tokens, request=request)
    judge = ChatJudge(own)
    if number:
        judge.identity = json.dumps([judge.identity, number])
    return Asker(judge, store, own)


def _judge_chunk(
    suite: Suite, protocol: Protocol, lines: Sequence[Line], panel: Sequence[Asker]
) -> Iterator[dict[str, Any]]:
    """Judge some answers, try by try; yields a row for each, in order."""
    images = _images(suite, lines) if protocol.sees_images else [()] * len(lines)
    rows = [{"task": suite.name, "id": line["id"], "score": None, "reply": "", "tries": 0} for line in lines]
    open_ones = list(range(len(lines)))
    for one, asker in zip(protocol.tries, panel, strict=True):
        questions = [_question(protocol, one, lines[i], images[i]) for i in open_ones]
        replies = zip(open_ones, asker.ask(questions), strict=True)
        open_ones = [i for i, reply in replies if not _read(protocol, rows[i], reply)]
    for i in open_ones:
        rows[i]["score"] = protocol.unread
    yield from rows


def _question(protocol: Protocol, one: Try, line: Line, images: tuple[str, ...]) -> Question:
    system = read_prompt(protocol.system) if protocol.system else ""
    return Question(system, protocol.prompt(line) + one.suffix, images)


def _read(protocol: Protocol, row: dict[str, Any], reply: Any) -> bool:
    """Enter a reply; returns whether no further try is needed: it is read, or the judge refuses the question."""
    row["tries"] += 1
    row["reply"] = reply.text if isinstance(reply, Reply) else f"(no answer: {reply.reason})"
    row["score"] = protocol.parse(reply.text) if isinstance(reply, Reply) else None
    return row["score"] is not None or not isinstance(reply, Reply)


def _images(suite: Suite, lines: Sequence[Line]) -> list[tuple[str, ...]]:
    """Read the pictures of some questions again, as `data:` URLs."""
    items = {item.key: item for item in suite.items}
    return [tuple(map(_data_url, items[line["id"]].load_images())) for line in lines]


def _data_url(image: Image.Image) -> str:
    """Encode a picture as VLMEvalKit sends it: JPEG in base64."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
