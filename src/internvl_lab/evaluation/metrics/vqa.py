"""VQA accuracy over ten human answers, with the text rules of the EvalAI server (TextVQA, VQAv2, OK-VQA, VizWiz)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from internvl_lab.evaluation.metrics.pairs import answers_of, average, share

NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
NUMBERS = {"none": "0", **{word: str(value) for value, word in enumerate(NUMBER_WORDS.split())}}
ARTICLES = frozenset(("a", "an", "the"))
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
FULL_SCORE = 3
"""Other annotators who must agree for a full score."""
MOST_DOTS = 32
"""Dots removed from one answer: the official code hands `re.UNICODE`, which is 32, over as the count."""

_WITH_APOSTROPHES = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word
    for word in _WITH_APOSTROPHES.split()
    for place, letter in enumerate(word)
    if letter == "'"
} | {"somebody'd": "somebodyd"}
"""A contraction that lacks one apostrophe -> with it; the last pair runs the wrong way in the official table too."""

_DOT = re.compile(r"\.(?!\d)")


def normalise_vqa(answer: str) -> str:
    """Bring an answer into the form in which answers are compared: no punctuation or articles, numbers as digits.

    Source: `EvalAIAnswerProcessor` in the authors' `internvl_chat/eval/vqa/textvqa_eval.py` (from mmf).
    """
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = _strip_punctuation(text.replace("\n", " ").replace("\t", " ").strip())
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _strip_punctuation(text: str) -> str:
    """Drop a mark that touches a space anywhere in the text, and put a space for one that never does."""
    stripped = text
    for mark in PUNCTUATION:
        touches = f"{mark} " in text or f" {mark}" in text
        stripped = stripped.replace(mark, "" if touches else " ")
    return _DOT.sub("", stripped, count=MOST_DOTS)


def vqa_score(prediction: str, reference: Any) -> float:
    """Return min(1, n / 3), n = how many others gave this answer, averaged over leaving out each annotator.

    With ten annotators one in agreement gives 0.3, two 0.6, three 0.9, four 1. A reference with a single answer is
    taken for annotators who all agree, because leaving out the only one would leave nothing to agree with.
    Source: `TextVQAAccuracyEvaluator` in the authors' `textvqa_eval.py`.
    """
    answers = [normalise_vqa(answer) for answer in answers_of(reference)]
    found = normalise_vqa(prediction)
    if len(answers) == 1:
        return float(found == answers[0])
    agreeing = answers.count(found)
    return average(min(1.0, (agreeing - (answer == found)) / FULL_SCORE) for answer in answers)


def vqa_accuracy(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"vqa_accuracy": mean soft score}.

    Args:
        references: a list of (ten) human answers, a single str, or a dict with `answers`.
    Raises:
        ValueError: no answers, or not as many as references.
    Source: see `vqa_score`.
    """
    return {"vqa_accuracy": share(vqa_score, predictions, references)}
