"""Text recognition: OCRBench counts contained answers, VCR restores covered words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

from internvl_lab.evaluation.metrics.english_words import split_words
from internvl_lab.evaluation.metrics.pairs import answers_of, average, optional, paired, share

FORMULAS = "Handwritten Mathematical Expression Recognition"
RECOGNITION = (
    "Regular Text Recognition",
    "Irregular Text Recognition",
    "Artistic Text Recognition",
    "Handwriting Recognition",
    "Digit String Recognition",
    "Non-Semantic Text Recognition",
)
CATEGORIES = (
    *RECOGNITION,
    "Scene Text-centric VQA",
    "Doc-oriented VQA",
    "Key Information Extraction",
    FORMULAS,
)
_REFUSALS = re.compile(r"I can't|I cannot|(?i:sorry)|无法|抱歉")


def is_ocrbench(prediction: str, reference: Any) -> bool:
    """Say whether the answer contains one of the references; case counts, and spaces do not, for formulas only.

    An empty reference is contained in everything.
    Source: OCRBench, `OCRBench/example.py`; formulas are `dataset_name` HME100k, in VLMEvalKit a category.
    """
    formula = optional(reference, "dataset_name") == "HME100k" or _category(reference) == FORMULAS
    clean = _without_spaces if formula else _lowered
    return any(clean(answer) in clean(prediction) for answer in answers_of(reference))


def _lowered(text: str) -> str:
    return text.lower().strip().replace("\n", " ")


def _without_spaces(text: str) -> str:
    return text.strip().replace("\n", " ").replace(" ", "")


def _category(reference: Any) -> str:
    return str(optional(reference, "category", "type", "question_type") or "")


def ocrbench(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return OCRBench's counts: right answers in all (of 1000), per category, and as a share.

    Args:
        references: dicts with `answers` or `answer` (a list or a str) and `type` or `category` (one of the ten),
            perhaps `dataset_name`; or plain answers, which have no category.
    Returns:
        "ocrbench" (count), "accuracy" (share), "Text Recognition" (sum of six categories) and one count a category
        that occurs.
    Raises:
        ValueError: no answers, not as many as references, or an unknown category.
    Source: OCRBench, `OCRBench/example.py`.
    """
    rights: dict[str, list[bool]] = {}
    for prediction, reference in paired(predictions, references):
        category = _category(reference)
        if category and category not in CATEGORIES:
            raise ValueError(f"OCRBench has no category {category!r}; it has {', '.join(CATEGORIES)}")
        rights.setdefault(category, []).append(is_ocrbench(prediction, reference))
    counts = {name: float(sum(rights[name])) for name in CATEGORIES if name in rights}
    total = float(sum(sum(group) for group in rights.values()))
    read = {"Text Recognition": sum(counts.get(name, 0.0) for name in RECOGNITION)} if counts else {}
    return {"ocrbench": total, "accuracy": total / len(predictions), **read, **counts}


def is_contained(prediction: str, reference: Any) -> bool:
    """Say whether the answer contains one of the references, but for case and dots.

    Source: VLMEvalKit, `vlmeval/dataset/image_vqa.py`, `MTVQADataset`.
    """
    found = prediction.lower().replace(".", "")
    return any(answer.lower().replace(".", "") in found for answer in answers_of(reference))


def contained(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"contained": share of answers that contain a reference}.

    Args:
        references: a str, a list of acceptable str, or a dict with `answer`.
    Raises:
        ValueError: no answers, or not as many as references.
    Source: see `is_contained`.
    """
    return {"contained": share(is_contained, predictions, references)}


def vcr(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"vcr", "exact_match", "jaccard"}: shares over all covered texts of all images.

    Args:
        references: for each image its list of covered texts, a single str, or a dict with `answer` and perhaps
            `language` (`en` or `zh`, which is compared character by character; default `en`).
    Returns:
        "vcr" is the exact match. English words are those of spaCy's tokenizer (`english_words`); the official Chinese
        ones come from a trained model (`zh_core_web_sm`), so `zh` is not the official score.
    Raises:
        ValueError: no answers, not as many as references, or an image without covered texts.
    Source: VLMEvalKit, `vlmeval/dataset/vcr.py`: mean over covered texts.
    """
    rows = [
        row for prediction, reference in paired(predictions, references) for row in score_vcr(prediction, reference)
    ]
    exact = average(row[0] for row in rows)
    return {"vcr": exact, "exact_match": exact, "jaccard": average(row[1] for row in rows)}


def score_vcr(prediction: str, reference: Any) -> list[tuple[float, float]]:
    """Return (exact, Jaccard) for each covered text: that of the most similar stretch of as many words in the answer.

    A refusal scores nothing.
    Source: VLMEvalKit, `vlmeval/dataset/vcr.py`, `find_best_match` and `rough_filter`.
    """
    answer = prediction.rsplit("Assistant: ", maxsplit=1)[-1]
    covered = answers_of(reference)
    if _REFUSALS.search(answer):
        return [(0.0, 0.0)] * len(covered)
    chinese = optional(reference, "language") == "zh"
    return [_best_match(text, answer, chinese) for text in covered]


def _best_match(needle: str, hay: str, chinese: bool) -> tuple[float, float]:
    """Compare a covered text with the stretch of words most similar to it that shares a word."""
    wanted, words = _words(needle, chinese), _words(hay, chinese)
    glue = "" if chinese else " "
    best: list[str] = []
    best_ratio = 0.0
    for start in range(len(words) - len(wanted) + 1):
        stretch = words[start : start + len(wanted)]
        if set(stretch).isdisjoint(wanted):
            continue
        ratio = SequenceMatcher(None, glue.join(stretch), needle).ratio()
        if ratio > best_ratio:
            best, best_ratio = stretch, ratio
    if not best:
        return 0.0, 0.0
    common = len(set(best) & set(wanted))
    return float(best == wanted), common / len(set(best) | set(wanted))


def _words(text: str, chinese: bool) -> list[str]:
    return [c for c in text if not c.isspace()] if chinese else split_words(text)
