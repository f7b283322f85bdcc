"""Yes-or-no benchmarks: POPE, MME and HallusionBench, each with its own way of reading an answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from internvl_lab.evaluation.metrics.pairs import answers_of, average, field, optional, paired

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
MME_PREFIX = 4
"""Characters of an answer in which MME looks for yes or no."""
_PUNCTUATION = re.compile(r'[;/\[\]"{}()=+\\_\-><@`,?!]')
_DOT = re.compile(r"\.(?!\d)")
_MAX_DOTS = 32
"""VLMEvalKit takes away so many dots and no more: it passes a flag, `re.UNICODE`, where a count belongs."""
_CHINESE = re.compile(r"[\u4e00-\u9fa5]")


def read_pope(answer: str) -> str:
    """Return `no` where the first sentence has the word No, no or not, else `yes`, also for an empty answer.

    Words are what single spaces separate, commas dropped; `NO`, `no!` and `isn't` are therefore a yes.
    Source: authors' `internvl_chat/eval/pope/eval_pope.py` (POPE's own rule).
    """
    words = answer.split(".", maxsplit=1)[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def is_pope(prediction: str, reference: Any) -> bool:
    """Say whether an answer is right; see `read_pope`."""
    return read_pope(prediction) == _label(reference)


def pope(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return accuracy, precision, recall, F1 and share of yes, of every split and averaged over the splits.

    Args:
        references: dicts with `label` or `answer` (yes or no) and `category` (random, popular, adversarial; several
            joined by commas count in each); or plain yes and no, which make one split.
    Returns:
        "pope" and "f1" (mean F1 over splits, the report's figure), "accuracy", "precision", "recall", "yes_ratio", and
        `<split>/f1` and so on. A ratio over nothing is 0.
    Raises:
        ValueError: no answers, not as many as references, or a label that is neither yes nor no.
    Source: authors' `internvl_chat/eval/pope/eval_pope.py`; splits of VLMEvalKit's POPE.tsv as in its `POPE_rating`.
    """
    splits: dict[str, list[tuple[str, str]]] = {}
    for prediction, reference in paired(predictions, references):
        for split in str(optional(reference, "category", "split") or "all").split(","):
            splits.setdefault(split.strip(), []).append((read_pope(prediction), _label(reference)))
    scores = {split: _pope_scores(rows) for split, rows in sorted(splits.items())}
    names = ("f1", "accuracy", "precision", "recall", "yes_ratio")
    mean = {name: average(score[name] for score in scores.values()) for name in names}
    single = {f"{split}/{name}": value for split, score in scores.items() for name, value in score.items()}
    return {"pope": mean["f1"], **mean, **(single if len(scores) > 1 else {})}


def _pope_scores(rows: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Score (answer, label) pairs of one split; yes is the positive class."""
    positive = sum(answer == "yes" for answer, _ in rows)
    wanted = sum(label == "yes" for _, label in rows)
    hits = sum(answer == label == "yes" for answer, label in rows)
    precision, recall = _ratio(hits, positive), _ratio(hits, wanted)
    return {
        "f1": _ratio(2 * precision * recall, precision + recall),
        "accuracy": average(answer == label for answer, label in rows),
        "precision": precision,
        "recall": recall,
        "yes_ratio": positive / len(rows),
    }


def _ratio(a: float, b: float) -> float:
    return a / b if b else 0.0


def _label(reference: Any) -> str:
    """Return yes or no."""
    label = answers_of(reference)[0].strip().lower()
    if label not in ("yes", "no"):
        raise ValueError(f"reference {reference!r} must be yes or no")
    return label


def read_mme(answer: str) -> str:
    """Return `yes`, `no` or `other`, by the first four characters in lower case; `Know` is a no.

    Source: MME, `eval_tool/calculation.py`, `parse_pred_ans`.
    """
    start = answer.lower()[:MME_PREFIX]
    return "yes" if "yes" in start else "no" if "no" in start else "other"


def read_mme_as_run(answer: str) -> str:
    """Do the same after the authors' clean-up: Chinese yes and no, true and false are understood.

    Source: authors' `internvl_chat/eval/mme/eval.py`, `post_processing`.
    """
    text = answer.replace("\n", "").replace("不是", "No").replace("是", "Yes").replace("否", "No")
    return read_mme(_CHINESE.sub("", text.lower().replace("true", "yes").replace("false", "no")))


def is_mme(prediction: str, reference: Any) -> bool:
    """Say whether an answer is right; see `read_mme`."""
    return read_mme(prediction) == _label(reference)


def mme(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return MME's sums: per subtask 100 x accuracy + 100 x accuracy+ (all questions of an image right).

    Args:
        references: dicts with `answer` (yes or no), `category` (one of the 14 subtasks) and `image` (or `image_path`,
            `image_id`, `question_id`), by which the two questions of an image are brought together.
    Returns:
        "mme" and "total" (perception + cognition, at most 2800), "perception" (2000), "cognition" (800), "as_run" (the
        total after the authors' clean-up of answers) and one key a subtask (200).
    Raises:
        ValueError: no answers, not as many as references, an unknown subtask, or a missing field.
    Source: MME, `eval_tool/calculation.py`; authors' `internvl_chat/eval/mme/`.
    """
    pairs = paired(predictions, references)
    official = _mme_scores((read_mme(p), reference) for p, reference in pairs)
    perception = sum(official.get(task, 0.0) for task in PERCEPTION)
    cognition = sum(official.get(task, 0.0) for task in COGNITION)
    as_run = _mme_scores((read_mme_as_run(p), reference) for p, reference in pairs)
    total = perception + cognition
    sums = {"mme": total, "total": total, "perception": perception, "cognition": cognition}
    return {**sums, "as_run": sum(as_run[task] for task in (*PERCEPTION, *COGNITION) if task in as_run), **official}


def _mme_scores(rows: Iterable[tuple[str, Any]]) -> dict[str, float]:
    """Return subtask -> score, in the benchmark's order, for (yes, no or other; reference)."""
    images: dict[str, dict[str, list[bool]]] = {}
    for answer, reference in rows:
        task = str(field(reference, "category", "task", "type"))
        if task not in PERCEPTION + COGNITION:
            raise ValueError(f"MME has no subtask {task!r}; it has {', '.join(PERCEPTION + COGNITION)}")
        image = str(field(reference, "image", "image_path", "image_id", "question_id"))
        images.setdefault(task, {}).setdefault(image, []).append(answer == _label(reference))
    scores = {}
    for task in (*PERCEPTION, *COGNITION):
        if task in images:
            groups = images[task].values()
            each = average(right for group in groups for right in group)
            scores[task] = 100 * each + 100 * average(all(group) for group in groups)
    return scores


def read_yes_or_no(answer: str) -> str:
    """Return `yes` or `no` where exactly one of the words occurs, else `unknown`.

    Source: VLMEvalKit, `vlmeval/dataset/utils/yorn.py`, `YOrN_Extraction`.
    """
    lowered = answer.lower()
    spaced = _PUNCTUATION.sub(lambda mark: _blank(mark[0], lowered), lowered)
    words = set(_DOT.sub("", spaced, count=_MAX_DOTS).split())
    found = words & {"yes", "no"}
    return found.pop() if len(found) == 1 else "unknown"


def _blank(mark: str, text: str) -> str:
    """Return what a mark becomes: nothing where it touches a space anywhere or a number has a comma, else a space."""
    touches = f"{mark} " in text or f" {mark}" in text or re.search(r"\d,\d", text) is not None
    return "" if touches else " "


def is_hallusion(prediction: str, reference: Any) -> bool:
    """Say whether an answer is right; in the benchmark's own form one that is neither yes nor no counts without figure.

    Source: VLMEvalKit, `vlmeval/dataset/image_yorn.py`, without a judge; HallusionBench, `utils.py`,
    `assign_correctness`: an uncertain answer to a VS question without figure.
    """
    read = read_yes_or_no(prediction)
    wanted = answers_of(_with_answer(reference))[0].strip().lower()
    wanted = {"1": "yes", "0": "no"}.get(wanted, wanted)
    return read == wanted or (read == "unknown" and _without_figure(reference))


def hallusion(predictions: Sequence[str], references: Sequence[Any]) -> dict[str, float]:
    """Return {"hallusion", "aAcc", "fAcc", "qAcc"}: their mean, and shares of answers, figures, questions all right.

    Two forms of references, each scored as its own scorer scores it; the report's figures are of the first.

    Args:
        references: either dicts as in VLMEvalKit's TSV: `answer` (yes or no), `subcategory` or `l2-category`, and
            `index`, whose fields 3 to 5 are set, figure and question (`x_VD_figure_0_1_0`). Figures are (subcategory,
            set, figure), questions (subcategory, set, question). Or dicts as in HallusionBench's own JSON: `set_id`,
            `figure_id`, `question_id`, `category` (VD or VS), `subcategory`, and `gt_answer` (1 or 0) or `answer`.
            There the category parts figures and questions as well, VS questions without a figure (0) are in no figure,
            and an uncertain answer to them is right.
    Raises:
        ValueError: no answers, not as many as references, or a missing field.
    Source: VLMEvalKit, `vlmeval/dataset/utils/yorn.py`, `Hallusion_rating`; HallusionBench, `utils.py`. Both read
    answers with a judge; here `read_yes_or_no` does it alone.
    """
    answers: list[bool] = []
    figures: dict[tuple[str, ...], list[bool]] = {}
    questions: dict[tuple[str, ...], list[bool]] = {}
    for prediction, reference in paired(predictions, references):
        right = is_hallusion(prediction, reference)
        *group, figure, question = _hallusion_ids(reference)
        answers.append(right)
        questions.setdefault((*group, question), []).append(right)
        if not _without_figure(reference):
            figures.setdefault((*group, figure), []).append(right)
    scores = {
        "aAcc": average(answers),
        "fAcc": average(all(rights) for rights in figures.values()),
        "qAcc": average(all(rights) for rights in questions.values()),
    }
    return {"hallusion": average(scores.values()), **scores}


def _with_answer(reference: Any) -> Any:
    """Give the benchmark's own field `gt_answer` the usual name."""
    given = optional(reference, "gt_answer")
    return reference if given is None else {**reference, "answer": given}


def _hallusion_ids(reference: Any) -> tuple[str, ...]:
    """Return (category where it counts, subcategory, set, figure, question)."""
    subcategory = str(optional(reference, "subcategory", "l2-category") or "")
    if optional(reference, "set_id") is not None:
        ids = (str(field(reference, name)) for name in ("set_id", "figure_id", "question_id"))
        return str(field(reference, "category")), subcategory, *ids
    parts = str(field(reference, "index")).split("_")
    if len(parts) < 6:
        raise ValueError(f"index {reference['index']!r} has no set, figure and question")
    return subcategory, *parts[3:6]


def _without_figure(reference: Any) -> bool:
    """Say whether this is a VS question without a figure, in the benchmark's own form."""
    return optional(reference, "category") == "VS" and str(optional(reference, "figure_id")) == "0"
