"""How each judged benchmark's own scorer asks its judge, reads the answer, and averages.

Prompts are the official ones, to the letter (`prompts/README.md` says whose). Quirks stay: an answer that cannot be
read counts as the official scorer counts it, and the tries after it are at the official temperatures.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from internvl_lab.errors import ConfigError
from internvl_lab.evaluation.answer_log import Line
from internvl_lab.evaluation.metrics.pairs import average

FOLDER = "evaluation/judging/prompts"
PLAIN_PROMPT = (
    "Compare the answer of a model with the reference and score it on the scale {scale}. "
    "Reply with the number alone.\n\nQuestion: {question}\nReference: {reference}\nAnswer: {answer}\nScore:"
)


@dataclass(frozen=True)
class Try:
    """Say how a judge is asked once more after an answer that could not be read."""

    temperature: float = 0.0
    suffix: str = ""
    """What is added to the prompt."""


@dataclass(frozen=True)
class Opinions:
    """Hold what a judge thinks of the answers to one task."""

    scores: Mapping[str, float]
    """Question -> score."""
    judge: str
    """Who judged, and by which protocol; for the record."""


@dataclass(frozen=True)
class Protocol:
    """Hold one benchmark's way with its judge."""

    source: str
    """Repository and file that this follows."""
    prompt: Callable[[Line], str]
    """A line of the answer log -> what the judge is asked."""
    parse: Callable[[str], float | None]
    """The judge's words -> score; None where they cannot be read."""
    summarise: Callable[[Sequence[float]], dict[str, float]]
    """Scores of all questions -> named figures, the one of the tables first."""
    unread: float | None
    """Score where no try could be read; None = no score."""
    factor: float = 1.0
    """What the tables multiply the first figure with."""
    system: str = ""
    sees_images: bool = False
    """Whether the question's pictures are shown to the judge."""
    tries: tuple[Try, ...] = (Try(),)
    max_answer_tokens: int = 1024
    request: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request's body."""


@cache
def read_prompt(name: str) -> str:
    """Read a file of `prompts`."""
    return resources.files("internvl_lab").joinpath(*FOLDER.split("/"), name).read_text(encoding="utf-8")


def field_of(line: Line, name: str) -> str:
    """Return a field of a question's row as text; "" where it has none."""
    reference = line["reference"]
    value = reference.get(name, "") if isinstance(reference, Mapping) else reference if name == "answer" else ""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def question_of(line: Line) -> str:
    """Return the question as the benchmark words it, without what the prompt adds."""
    return field_of(line, "question") or str(line["question"])


def plain_protocol(scale: str) -> Protocol:
    """Return a protocol of ours for sets without an official one here; its scores compare with no published ones.

    Args:
        scale: what a score is, in words.
    """

    def prompt(line: Line) -> str:
        """Fill in the prompt."""
        reference = line["reference"].get("answer", "") if isinstance(line["reference"], Mapping) else line["reference"]
        shown = "; ".join(map(str, reference)) if isinstance(reference, list) else str(reference)
        return PLAIN_PROMPT.format(scale=scale, question=line["question"], reference=shown, answer=line["prediction"])

    return Protocol("internvl-lab's own plain prompt", prompt, parse_number, lambda s: {"judge": average(s)}, None)


def parse_number(text: str) -> float | None:
    """Read an answer that is a number and nothing else, as Python's `float` does; never inf or nan."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def parse_share(text: str) -> float | None:
    """Read a number from 0 to 1. Source: VLMEvalKit, `MMVet_auxeval`."""
    value = parse_number(text)
    return value if value is not None and 0 <= value <= 1 else None


def parse_first_share(text: str) -> float | None:
    """Read a number from 0 to 1 before the first space. Source: MM-Vet v2's evaluator."""
    return parse_share(text.split(" ", maxsplit=1)[0].strip())


def parse_rating(text: str) -> float | None:
    """Read the one `rating: N` of an answer, N in 0..6. Source: the authors' `eval_gpt_mmhal.py`."""
    found = [rating for rating in range(7) if f"rating: {rating}" in text.lower()]
    return float(found[0]) if len(found) == 1 else None


def parse_verdict(text: str) -> float | None:
    """Read the one verdict `[[A>B]]`, from -2 (A much better) to 2 (B, the model, much better).

    Source: VLMEvalKit, `wildvision.py`, `get_score` and `score_map`.
    """
    verdicts = set(re.findall(r"\[\[([AB<>=]+)\]\]", text))
    known = {"A>>B": -2.0, "A>B": -1.0, "A=B": 0.0, "B>A": 1.0, "B>>A": 2.0}
    return known.get(verdicts.pop(), 0.0) if len(verdicts) == 1 else None


def parse_integer(text: str) -> float | None:
    """Read an answer that is an integer. Source: VLMEvalKit, `mmbench_video.py`."""
    return float(text) if re.fullmatch(r"\s*[+-]?\d+\s*", text, re.ASCII) else None


def _needed(line: Line, name: str) -> str:
    """Return a field without which the judge would be asked something else.

    Raises:
        ConfigError: the row lacks it.
    """
    if not (value := field_of(line, name)):
        raise ConfigError(f"question {line['id']}: its row has no {name}, which the judge has to see")
    return value


def parse_json_score(text: str) -> float | None:
    """Read the `score` of a JSON object. Source: VLMEvalKit, `charxiv.py`, `auxeval`."""
    try:
        return float(json.loads(text)["score"])
    except (ValueError, TypeError, KeyError):
        return None


def _spaced(answer: str) -> str:
    """Set the marks between parts of an answer apart."""
    return answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")


def _mmvet(line: Line) -> str:
    parts = (question_of(line), _spaced(field_of(line, "answer")), line["prediction"], "")
    return read_prompt("mmvet.txt") + "\n" + " | ".join(parts)


def _mmvet_v2(line: Line) -> str:
    parts = (question_of(line), _spaced(field_of(line, "answer")), line["prediction"])
    return read_prompt("mmvet_v2.txt") + "| " + " | ".join([*(part.replace("\n", "<br>") for part in parts), ""])


def _mmhal(line: Line) -> str:
    shown = (_needed(line, "image_content"), question_of(line), field_of(line, "answer"), line["prediction"])
    return read_prompt("mmhal.txt").format(*shown)


def _wildvision(line: Line) -> str:
    other = _needed(line, "claude3_sonnet")
    prompt = read_prompt("wildvision.txt")
    return prompt.format(question=question_of(line), answer_1=other, answer_2=line["prediction"])


def _mmbench_video(line: Line) -> str:
    shown = (question_of(line), field_of(line, "answer"), line["prediction"])
    return "Question: {}\nGroundtruth answer: {}\nCandidate answer: {}\nYour response: ".format(*shown)


def _charxiv(line: Line) -> str:
    return _needed(line, "grading_query").replace("{PREDICTION}", line["prediction"])


def _charxiv_protocol(name: str) -> Protocol:
    """Return CharXiv's protocol; the file itself holds each question's grading prompt."""
    return Protocol(
        "open-compass/VLMEvalKit, vlmeval/dataset/charxiv.py; princeton-nlp/CharXiv, src/reasoning_utils.py",
        _charxiv,
        parse_json_score,
        lambda scores: {name: average(scores)},
        unread=0.0,
        factor=100.0,
        tries=(Try(),) * 10,
        max_answer_tokens=256,
        request={"seed": 42, "top_p": 1, "response_format": {"type": "json_object"}},
    )


def _rated(ratings: Sequence[float]) -> dict[str, float]:
    return {"mmhal": average(ratings), "hallucination_rate": average(rating < 3 for rating in ratings)}


def _won(verdicts: Sequence[float]) -> dict[str, float]:
    return {"win_rate": average(verdict > 0 for verdict in verdicts), "reward": 50 * average(verdicts)}


def _graded(grades: Sequence[float]) -> dict[str, float]:
    valid = [grade for grade in grades if grade >= 0]
    everything = average(max(grade, 0.0) for grade in grades)
    return {"mmbench_video": everything, "valid_only": average(valid)}


_DIGIT = "\n\nPredict the correctness of the answer (digit): "

PROTOCOLS: dict[str, Protocol] = {
    "mmvet": Protocol(
        "open-compass/VLMEvalKit, vlmeval/dataset/utils/mmvet.py",
        _mmvet,
        parse_share,
        lambda scores: {"mmvet": average(scores)},
        unread=0.0,
        factor=100.0,
        tries=tuple(Try(0.5 * number) for number in range(5)),
        max_answer_tokens=3,
    ),
    "mmvet_v2": Protocol(
        "yuweihao/MM-Vet, v2/mm-vet-v2_evaluator.py",
        _mmvet_v2,
        parse_first_share,
        lambda scores: {"mmvet_v2": average(scores)},
        unread=0.0,
        factor=100.0,
        tries=(Try(), *(Try(0.5 * number, _DIGIT) for number in range(4))),
        max_answer_tokens=3,
    ),
    "mmhal": Protocol(
        "OpenGVLab/InternVL, internvl_chat/eval/mmhal/eval_gpt_mmhal.py", _mmhal, parse_rating, _rated, unread=0.0
    ),
    "wildvision": Protocol(
        "open-compass/VLMEvalKit, vlmeval/dataset/wildvision.py",
        _wildvision,
        parse_verdict,
        _won,
        unread=0.0,
        factor=100.0,
        system="wildvision_system.txt",
        sees_images=True,
        tries=(Try(), Try()),
        max_answer_tokens=4096,
    ),
    "charxiv_dq": _charxiv_protocol("charxiv_dq"),
    "charxiv_rq": _charxiv_protocol("charxiv_rq"),
    "mmbench_video": Protocol(
        "open-compass/VLMEvalKit, vlmeval/dataset/mmbench_video.py",
        _mmbench_video,
        parse_integer,
        _graded,
        unread=-1.0,
        system="mmbench_video_system.txt",
    ),
}
"""Benchmark to its official protocol."""


def protocol_of(name: str, settings: Mapping[str, Any]) -> Protocol:
    """Return a benchmark's protocol; where none is official here, the plain one on the scale that its file names."""
    return PROTOCOLS.get(name) or plain_protocol(str(settings.get("judge_metric") or "0..1"))
