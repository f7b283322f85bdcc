"""Scores of answers against references: one function a benchmark family, as its official scorer counts.

Each takes (predictions, references) and returns named scores, its own name first: the figure a report shows. Shares are
0 to 1; `mme` (0..2800), `ocrbench` (a count) and `cider_d` (0..10) keep their benchmark's unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from internvl_lab.evaluation.metrics.boxes import (
    BOX_SCALE,
    box_hit,
    box_iou,
    iou_at_50,
    is_box_hit,
    is_grounded,
    parse_box,
)
from internvl_lab.evaluation.metrics.captions import cider_d
from internvl_lab.evaluation.metrics.choices import is_right_choice, mmbench_circular, multiple_choice
from internvl_lab.evaluation.metrics.documents import anls, anls_of, is_relaxed, relaxed_accuracy
from internvl_lab.evaluation.metrics.exact import (
    accuracy,
    exact_match,
    gqa,
    is_exact,
    is_gqa,
    is_same_word,
    normalise_answer,
)
from internvl_lab.evaluation.metrics.mathvision import is_mathvision, mathvision
from internvl_lab.evaluation.metrics.mathvista import is_mathvista, mathvista
from internvl_lab.evaluation.metrics.mirb import is_mirb, mirb
from internvl_lab.evaluation.metrics.mmmu import is_mmmu, is_mmmu_pro, mmmu, mmmu_pro
from internvl_lab.evaluation.metrics.ocr import contained, is_contained, is_ocrbench, ocrbench, score_vcr, vcr
from internvl_lab.evaluation.metrics.own_choices import (
    choice_or_word,
    crpe,
    is_choice_or_word,
    is_crpe,
    is_longvideobench,
    is_mlvu,
    is_mme_realworld,
    is_mmiu,
    is_mvbench,
    is_videomme,
    longvideobench,
    mlvu,
    mme_realworld,
    mmiu,
    mvbench,
    videomme,
)
from internvl_lab.evaluation.metrics.pairs import average
from internvl_lab.evaluation.metrics.theoremqa import is_theoremqa, theoremqa
from internvl_lab.evaluation.metrics.vqa import vqa_accuracy, vqa_score
from internvl_lab.evaluation.metrics.yes_no import hallusion, is_hallusion, is_mme, is_pope, mme, pope

__all__ = [
    "BOX_SCALE",
    "CHOICE_METRICS",
    "JUDGES",
    "METRICS",
    "accuracy",
    "anls",
    "box_hit",
    "box_iou",
    "choice_or_word",
    "cider_d",
    "contained",
    "crpe",
    "exact_match",
    "gqa",
    "hallusion",
    "iou_at_50",
    "is_box_hit",
    "is_exact",
    "longvideobench",
    "mathvision",
    "mathvista",
    "mirb",
    "mlvu",
    "mmbench_circular",
    "mme",
    "mme_realworld",
    "mmiu",
    "mmmu",
    "mmmu_pro",
    "multiple_choice",
    "mvbench",
    "normalise_answer",
    "ocrbench",
    "parse_box",
    "pope",
    "relaxed_accuracy",
    "theoremqa",
    "vcr",
    "videomme",
    "vqa_accuracy",
]

JUDGES: dict[str, Callable[[str, str], bool]] = {"exact_match": is_exact, "iou_at_50": is_box_hit}
"""Miniworld's metrics: name to judge of one answer."""

Metric = Callable[[Sequence[str], Sequence[Any]], dict[str, float]]
Judge = Callable[[str, Any], float]

METRICS: dict[str, tuple[Metric, Judge | None]] = {
    "accuracy": (accuracy, is_same_word),
    "anls": (anls, anls_of),
    "box_hit": (box_hit, is_box_hit),
    "choice_or_word": (choice_or_word, is_choice_or_word),
    "cider_d": (cider_d, None),  # a caption has no score without the other images
    "contained": (contained, is_contained),
    "crpe": (crpe, is_crpe),
    "exact_match": (exact_match, is_exact),
    "gqa": (gqa, is_gqa),
    "hallusion": (hallusion, is_hallusion),
    "iou_at_50": (iou_at_50, is_grounded),
    "longvideobench": (longvideobench, is_longvideobench),
    "mathvision": (mathvision, is_mathvision),
    "mathvista": (mathvista, is_mathvista),
    "mirb": (mirb, is_mirb),
    "mlvu": (mlvu, is_mlvu),
    "mmbench_circular": (mmbench_circular, is_right_choice),
    "mme": (mme, is_mme),
    "mme_realworld": (mme_realworld, is_mme_realworld),
    "mmiu": (mmiu, is_mmiu),
    "mmmu": (mmmu, is_mmmu),
    "mmmu_pro": (mmmu_pro, is_mmmu_pro),
    "multiple_choice": (multiple_choice, is_right_choice),
    "mvbench": (mvbench, is_mvbench),
    "ocrbench": (ocrbench, is_ocrbench),
    "pope": (pope, is_pope),
    "relaxed_accuracy": (relaxed_accuracy, is_relaxed),
    "theoremqa": (theoremqa, is_theoremqa),
    "vcr": (vcr, lambda prediction, reference: average(exact for exact, _ in score_vcr(prediction, reference))),
    "videomme": (videomme, is_videomme),
    "vqa_accuracy": (vqa_accuracy, vqa_score),
}
"""Name to the metric over all answers, and the score of one answer, 0 to 1, where one has any."""

CHOICE_METRICS = (
    "longvideobench",
    "mlvu",
    "mmbench_circular",
    "mme_realworld",
    "mmiu",
    "multiple_choice",
    "mvbench",
    "videomme",
)
"""Metrics whose questions must have options."""
