"""RefCOCO's rule on hard cases; the strict one is tested in tests/evaluation/test_metrics.py."""

from __future__ import annotations

from typing import Any

import pytest

from internvl_lab.evaluation.metrics import iou_at_50
from internvl_lab.evaluation.metrics.boxes import box_hit, is_grounded

FULL = {"bbox": [0, 0, 640, 480], "width": 640, "height": 480}


@pytest.mark.parametrize(
    ("prediction", "reference", "right"),
    [
        ("<ref>it</ref><box>[[0, 0, 1000, 1000]]</box>", FULL, True),
        ("[[0, 0, 500, 1000]]", FULL, True),  # 0.5 itself counts
        ("[[0, 0, 499, 1000]]", FULL, False),
        ("[0, 0, 1000, 1000]", FULL, True),  # one pair of brackets is enough
        ("[[0.0, 0.0, 1.0, 1.0]]", FULL, True),  # shares of the image, because they sum to less than 4
        ("[[1, 1, 1, 1]]", FULL, False),  # sums to 4: thousandths, an empty box
        ("[[0, 0, 2000, 1000]]", FULL, True),  # beyond the image: 0.5 exactly, not clipped
        ("[[0, 0, 2001, 1000]]", FULL, False),
        ("[[-1000, 0, 1000, 1000]]", FULL, True),
        ("[[1000, 1000, 0, 0]]", FULL, False),  # corners the wrong way round
        ("[[a, b, c, d]]", FULL, False),
        ("[[1, 2, 3]]", FULL, False),
        ("[[0, 0, 1e39, 1000]]", FULL, False),  # beyond float32, without a warning
        ("[[nan, 0, inf, 1000]]", FULL, False),
        ("see [1] and [[0, 0, 1000, 1000]]", FULL, False),  # the first bracket that three commas follow is read
        ("[[0,\n0, 1000, 1000]]", FULL, False),  # a box ends with its line
        ("[[ 0,0 , 1e3,1000.0]]", FULL, True),
        ("no box", FULL, False),
        ("", FULL, False),
        ("[[0, 0, 1000, 1000]] [[5, 5, 6, 6]]", FULL, True),  # the first counts
        ("[[0, 0, 1000, 1000]]", {"gt_bbox": [0, 0, 640, 480], "hw": [480, 640]}, True),
        ("[[0, 0, 10, 10]]", "<box>[[0, 0, 10, 10]]</box>", True),
    ],
)
def test_is_grounded(prediction: str, reference: Any, right: bool) -> None:
    assert is_grounded(prediction, reference) is right
    assert iou_at_50([prediction], [reference]) == {"iou_at_50": float(right)}


def test_a_reference_without_box_is_a_fault() -> None:
    with pytest.raises(ValueError, match="holds no box"):
        is_grounded("[[0, 0, 1, 1]]", "left")
    with pytest.raises(ValueError, match="bbox"):
        is_grounded("[[0, 0, 1, 1]]", {"width": 1, "height": 1})


def test_box_hit_is_the_strict_rule() -> None:
    assert box_hit(["[0, 0, 10, 10]", "[[0, 0, 10, 10]]"], ["[[0, 0, 10, 10]]"] * 2) == {"box_hit": 0.5}
