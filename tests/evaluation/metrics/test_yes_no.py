"""POPE, MME and HallusionBench: reading answers, grouping, sums."""

from __future__ import annotations

from typing import Any

import pytest

from internvl_lab.evaluation.metrics import hallusion, mme, pope
from internvl_lab.evaluation.metrics.yes_no import (
    is_hallusion,
    is_mme,
    is_pope,
    read_mme,
    read_mme_as_run,
    read_pope,
    read_yes_or_no,
)


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("Yes", "yes"),
        ("No", "no"),
        ("no, there is none", "no"),
        ("There is not a dog.", "no"),
        ("Yes. No dog though.", "yes"),  # the first sentence counts
        ("NO", "yes"),
        ("no!", "yes"),
        ("isn't", "yes"),
        ("No\n", "yes"),
        ("nothing", "yes"),
        ("", "yes"),
        ("没有", "yes"),
    ],
)
def test_read_pope(answer: str, read: str) -> None:
    assert read_pope(answer) == read
    assert is_pope(answer, "Yes") is (read == "yes")


def test_pope_over_three_splits() -> None:
    def row(split: str, answer: str) -> dict[str, str]:
        return {"answer": answer, "category": split}

    references = [row("random", "yes"), row("random", "no"), row("popular", "yes"), row("adversarial", "no")]
    scores = pope(["Yes", "Yes", "No", "No"], references)
    # random: 1 hit of 2 said and 1 wanted; popular: nothing said; adversarial: nothing to find
    assert scores["random/f1"] == pytest.approx(2 / 3)
    assert scores["popular/f1"] == scores["adversarial/f1"] == 0.0
    assert scores["pope"] == scores["f1"] == pytest.approx(2 / 9)
    assert scores["accuracy"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert scores["precision"] == pytest.approx(0.5 / 3) and scores["recall"] == pytest.approx(1 / 3)
    assert scores["yes_ratio"] == pytest.approx(1 / 3)


def test_a_row_of_vlmevalkit_may_belong_to_several_splits() -> None:
    scores = pope(
        ["Yes", "No"], [{"answer": "Yes", "category": "random,popular"}, {"answer": "No", "category": "random"}]
    )
    assert scores["random/accuracy"] == scores["popular/accuracy"] == 1.0


def test_pope_refuses_other_labels() -> None:
    with pytest.raises(ValueError, match="yes or no"):
        pope(["yes"], ["maybe"])


@pytest.mark.parametrize(
    ("answer", "official", "as_run"),
    [
        ("Yes", "yes", "yes"),
        ("yes.", "yes", "yes"),
        ("NO", "no", "no"),
        ("Not really", "no", "no"),
        ("Know it", "no", "no"),  # within the first four letters
        ("I say yes", "other", "other"),
        ("True", "other", "yes"),
        ("false", "other", "no"),
        ("是", "other", "yes"),
        ("不是", "other", "no"),
        ("否", "other", "no"),
        ("", "other", "other"),
    ],
)
def test_read_mme(answer: str, official: str, as_run: str) -> None:
    assert (read_mme(answer), read_mme_as_run(answer)) == (official, as_run)
    assert is_mme(answer, "Yes") is (official == "yes")


def test_mme_sums() -> None:
    def row(task: str, image: str, answer: str) -> dict[str, str]:
        return {"category": task, "image_path": image, "answer": answer}

    references = [
        row("OCR", "1", "Yes"),
        row("OCR", "2", "Yes"),
        row("code_reasoning", "1", "Yes"),
        row("OCR", "1", "No"),
        row("OCR", "2", "No"),
        row("code_reasoning", "1", "No"),
    ]
    scores = mme(["Yes", "Yes", "Yes", "No", "Yes", "perhaps"], references)
    assert scores["OCR"] == 75 + 50  # 3 of 4 answers, 1 of 2 images
    assert scores["code_reasoning"] == 50 + 0
    assert (scores["perception"], scores["cognition"]) == (125, 50)
    assert scores["mme"] == scores["total"] == scores["as_run"] == 175


def test_mme_refuses_unknown_subtasks() -> None:
    with pytest.raises(ValueError, match="no subtask 'colour'"):
        mme(["yes"], [{"category": "colour", "image": "1", "answer": "yes"}])
    with pytest.raises(ValueError, match="image"):
        mme(["yes"], [{"category": "color", "answer": "yes"}])


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("Yes", "yes"),
        ("No.", "no"),
        ("no, it is not", "no"),
        ("yes and no", "unknown"),
        ("", "unknown"),
        ("I know", "unknown"),
        ("The answer is: Yes!", "yes"),
        ("yes/maybe", "yes"),
        ("不", "unknown"),
        # by VLMEvalKit's utils/yorn.py and its process_punctuation, which takes 32 dots away
        (". " * 31 + "no.", "no"),
        (". " * 32 + "no.", "unknown"),
        ("1,5 (yes)", "yes"),
        ("(yes)no", "unknown"),
        ("no.5", "unknown"),
        ("yes-no", "unknown"),
        ("No - yes-", "unknown"),
    ],
)
def test_read_yes_or_no(answer: str, read: str) -> None:
    assert read_yes_or_no(answer) == read


def hallusion_row(kind: str, figure: int, question: int, answer: Any, **more: Any) -> dict[str, Any]:
    ids = {"set_id": 0, "figure_id": figure, "question_id": question}
    return {"category": kind, "subcategory": "chart", "gt_answer": answer, **ids, **more}


def test_hallusion_groups() -> None:
    references = [
        hallusion_row("VD", 0, 0, "1"),
        hallusion_row("VD", 0, 1, "0"),
        hallusion_row("VD", 1, 0, "0"),
        hallusion_row("VS", 0, 0, "1"),  # no figure: in no fAcc
        hallusion_row("VS", 1, 0, "1"),
    ]
    scores = hallusion(["yes", "no", "yes", "no", "yes"], references)
    assert scores["aAcc"] == 3 / 5
    assert scores["fAcc"] == pytest.approx(2 / 3)  # figures VD 0, VD 1, VS 1: right, wrong, right
    assert scores["qAcc"] == pytest.approx(1 / 3)  # VD 0 wrong, VD 1 right, VS 0 wrong
    assert scores["hallusion"] == pytest.approx((3 / 5 + 2 / 3 + 1 / 3) / 3)


def test_uncertain_is_right_only_without_a_figure() -> None:
    assert is_hallusion("I cannot tell", {**hallusion_row("VS", 0, 0, "1"), "answer": "yes"})
    assert not is_hallusion("I cannot tell", {**hallusion_row("VS", 1, 0, "1"), "answer": "yes"})
    assert not is_hallusion("I cannot tell", {**hallusion_row("VD", 0, 0, "1"), "answer": "yes"})


def test_hallusion_reads_vlmevalkits_index() -> None:
    row = {"category": "VD", "l2-category": "chart", "answer": "Yes", "index": "hallusionbench_VD_chart_0_1_2"}
    assert hallusion(["yes"], [row]) == {"hallusion": 1.0, "aAcc": 1.0, "fAcc": 1.0, "qAcc": 1.0}
    with pytest.raises(ValueError, match="no set, figure and question"):
        hallusion(["yes"], [{**row, "index": "7"}])


def test_hallusion_in_vlmevalkits_form_is_scored_as_there() -> None:
    # by VLMEvalKit's utils/yorn.py, Hallusion_rating: the category parts nothing, figure 0 of VS is a figure, and
    # uncertain is wrong
    def row(kind: str, ids: str, answer: str) -> dict[str, str]:
        return {"category": kind, "l2-category": "ocr", "answer": answer, "index": f"h_{kind}_ocr_{ids}"}

    rows = (("VD", "0_0_0", "Yes"), ("VS", "0_0_0", "Yes"), ("VS", "1_0_0", "No"), ("VD", "1_1_0", "No"))
    scores = hallusion(["yes", "unclear", "no", "no"], [row(*values) for values in rows])
    expected = {"aAcc": 3 / 4, "fAcc": 2 / 3, "qAcc": 1 / 2}
    assert scores == {"hallusion": pytest.approx(sum(expected.values()) / 3), **expected}
