"""VQA accuracy: the text rules and the soft score."""

from __future__ import annotations

import pytest

from internvl_lab.evaluation.metrics import vqa_accuracy
from internvl_lab.evaluation.metrics.vqa import CONTRACTIONS, normalise_vqa, vqa_score


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Red car", "red car"),
        ("an apple and a pear", "apple and pear"),
        ("two", "2"),
        ("None", "0"),
        ("eleven", "eleven"),
        ("dont", "don't"),
        ("don't", "don't"),
        ("couldntve", "couldntve"),
        ("couldn'tve", "couldn't've"),
        ("Im", "im"),  # the table's capitals never meet a lower-cased word
        ("somebody'd", "somebodyd"),  # the one pair that runs the other way
        ("it's", "it 's"),
        ("1,000", "1000"),
        ("1,000.50", "1000.50"),
        ("3.5", "3.5"),
        ("yes.", "yes"),
        ("U.S.A.", "usa"),
        ("50%", "50%"),
        ("black-and-white", "black and white"),
        ("black - white", "black white"),
        ("a/b c", "b c"),  # the slash touches no space, so it becomes one, and the article goes
        ("yes/ no", "yes no"),
        ("what?", "what"),
        ("hello\nworld\tagain", "hello world again"),
        ("“quoted”", "“quoted”"),
        ("", ""),
        ("the", ""),
        ("红色", "红色"),
        ("." * 40, "." * 8),  # only 32 dots are removed
    ],
)
def test_normalise(text: str, normal: str) -> None:
    assert normalise_vqa(text) == normal


@pytest.mark.parametrize(("agreeing", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_soft_score(agreeing: int, score: float) -> None:
    answers = ["red"] * agreeing + [f"other {i}" for i in range(10 - agreeing)]
    assert vqa_score("Red.", answers) == pytest.approx(score)


def test_numbers_and_articles_agree_with_the_annotators() -> None:
    assert vqa_score("the two", ["2", "two", "Two.", "a two"] + ["x"] * 6) == 1.0


def test_one_answer_stands_for_all_annotators() -> None:
    assert vqa_accuracy(["red", "blue"], ["red", ["red"]]) == {"vqa_accuracy": 0.5}


def test_the_table_of_contractions() -> None:
    # 120 pairs in `textvqa_eval.py`, less four with a capital I and less let's and she's, which map to themselves
    assert len(CONTRACTIONS) == 114
    assert all(key != value for key, value in CONTRACTIONS.items())
    assert {"shed've": "she'd've", "twas": "'twas", "y'alld've": "y'all'd've"}.items() <= CONTRACTIONS.items()
