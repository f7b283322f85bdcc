"""Rules about a record's form: placeholders, boxes, the question in the answer, the script."""

from __future__ import annotations

import re
from collections.abc import Sequence

from internvl_lab.constants import (
    END_OF_TEXT_TOKEN,
    IMAGE_CONTEXT_TOKEN,
    IMAGE_PLACEHOLDER,
    TURN_END_TOKEN,
    TURN_START_TOKEN,
    VIDEO_PLACEHOLDER,
)
from internvl_lab.curation.rules.finding import NOTHING, Finding, quote

Turns = Sequence[tuple[str, str]]
"""(role, text) of each turn."""

BOX_SCALE = 1000
"""Coordinates are integers in 0..1000. Source: spec section 7."""
MIN_QUESTION = 20
"""Characters of a question from which its copy in the answer counts."""
CONTROL_TOKENS = (IMAGE_CONTEXT_TOKEN, TURN_START_TOKEN, TURN_END_TOKEN, END_OF_TEXT_TOKEN)
"""Tokens that the template adds; inside a text they are leavings of another tool."""

_PLACEHOLDER_LIKE = re.compile(r"<\s*/?\s*(?:image|video)\b(?!\s+[\w:-]+\s*=)\s*/?\s*>?", re.IGNORECASE)
_TAG = re.compile(r"<(/?)(ref|box|quad)>")
_NUMBERS = r"\[\s*\d+\s*(?:,\s*\d+\s*){3}\]"
_BOX_LIST = re.compile(rf"\s*\[\s*{_NUMBERS}\s*(?:,\s*{_NUMBERS}\s*)*\]\s*")
_FOUR = re.compile(_NUMBERS)
_INTEGER = re.compile(r"\d+")
_SPACES = re.compile(r"\s+")
_SCRIPT_OF = {
    "latin": r"A-Za-z\u00c0-\u024f\u1e00-\u1eff",
    "han": r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff",
    "kana": r"\u3040-\u30ff",
    "hangul": r"\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3",
    "cyrillic": r"\u0400-\u052f",
    "greek": r"\u0370-\u03ff",
    "arabic": r"\u0600-\u06ff\u0750-\u077f",
    "hebrew": r"\u0590-\u05ff",
    "thai": r"\u0e00-\u0e7f",
    "devanagari": r"\u0900-\u097f",
}
_SCRIPTS = {name: re.compile(f"[{ranges}]") for name, ranges in _SCRIPT_OF.items()}
_LETTER = re.compile(r"[^\W\d_]")


def placeholders(turns: Turns) -> Finding:
    """Count broken placeholders, placeholders in answers, and control tokens in any turn. Unit: faults.

    `<image href=...>` is markup and no fault. Source: spec section 7 (one placeholder an image, in human turns).
    """
    faults = []
    for role, text in turns:
        if "<" not in text:
            continue
        faults += [token for token in CONTROL_TOKENS if token in text]
        for match in _PLACEHOLDER_LIKE.finditer(text):
            sound = match[0] in (IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER)
            if role == "human" and not sound:
                faults.append(match[0])
            elif role == "gpt" and sound:
                faults.append(f"{match[0]} in an answer")
    return Finding(len(faults), ", ".join(faults[:3])) if faults else NOTHING


def boxes(turns: Turns) -> Finding:
    """Count malformed boxes: unbalanced tags, empty names, lists or coordinates out of form. Unit: faults.

    Sound: `<ref>name</ref><box>[[x1, y1, x2, y2], ...]</box>`, integers in 0..1000, x1 <= x2 and y1 <= y2; of `<quad>`
    only the tags are checked. Source: spec section 7.
    """
    faults = [fault for _, text in turns if "<" in text for fault in _box_faults(text)]
    return Finding(len(faults), "; ".join(faults[:3])) if faults else NOTHING


def copied_question(turns: Turns) -> Finding:
    """Return the largest share of an answer that is its own question, word for word. Unit: share, in [0, 1].

    Source: ours. Tasks that ask for a copy (`Repeat: ...`) answer with a part of the question, never with all of it.
    """
    best, question = NOTHING, ""
    for role, text in turns:
        plain = _plain(text)
        if role == "human":
            question = plain
        elif role == "gpt" and len(question) >= MIN_QUESTION and question in plain:
            share = plain.count(question) * len(question) / len(plain)
            if share > best.score:
                best = Finding(share, f"the answer holds its question: {quote(question)}")
    return best


def language(turns: Turns, scripts: Sequence[str]) -> Finding:
    """Return the share of the answers' letters in other scripts than `scripts`. Unit: share, in [0, 1].

    A light heuristic: it tells scripts apart, not languages, so French passes for English. Source: ours.
    """
    text = "".join(text for role, text in turns if role == "gpt")
    letters = len(_LETTER.findall(text))
    if not scripts or not letters:
        return NOTHING
    expected = sum(len(_SCRIPTS[script].findall(text)) for script in scripts)
    share = max(0.0, 1 - expected / letters)
    return Finding(share, f"{share:.0%} of the letters are not {' or '.join(scripts)}") if share else NOTHING


def _plain(text: str) -> str:
    """Drop placeholders, case and the kind of white space."""
    if "<" in text:
        text = text.replace(IMAGE_PLACEHOLDER, " ").replace(VIDEO_PLACEHOLDER, " ")
    return _SPACES.sub(" ", text).strip().lower()


def _box_faults(text: str) -> list[str]:
    """List what is wrong with the boxes of one text."""
    faults, opened, content_start = [], "", 0
    for match in _TAG.finditer(text):
        closing, name = match[1], match[2]
        if not closing:
            if opened:
                faults.append(f"<{opened}> is not closed")
            opened, content_start = name, match.end()
        elif name != opened:
            faults.append(f"</{name}> without <{name}>")
            opened = ""
        else:
            faults += _content_faults(name, text[content_start : match.start()])
            opened = ""
    return [*faults, f"<{opened}> is not closed"] if opened else faults


def _content_faults(name: str, content: str) -> list[str]:
    """List what is wrong between a pair of tags."""
    if name == "ref":
        return [] if content.strip() else ["<ref> is empty"]
    if name == "quad":
        return []
    if not _BOX_LIST.fullmatch(content):
        return [f"no list of boxes: {quote(content)}"]
    found = [[int(number) for number in _INTEGER.findall(box)] for box in _FOUR.findall(content)]
    wrong = [box for box in found if max(box) > BOX_SCALE or box[0] > box[2] or box[1] > box[3]]
    return [f"impossible box {box}" for box in wrong]
