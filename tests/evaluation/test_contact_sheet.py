"""The contact sheet: every example is there, marked by its outcome, and inside the picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from internvl_lab.evaluation.contact_sheet import (
    CELL_WIDTH,
    GREEN,
    GREY,
    MARGIN,
    MAX_FRAMES,
    RED,
    _font,
    _pick_frames,
    _wrap,
    draw_contact_sheet,
    show_question,
)
from internvl_lab.evaluation.results import Example, Prediction

BLUE = (0, 0, 255)


def example(correct: bool, images: int = 1, prediction: str = "yes", reference: str = "yes") -> Example:
    answer = Prediction("k", "<image>\nIs it?", reference, prediction, correct, "no", False)
    return Example("task", answer, tuple(Image.new("RGB", (40, 40), BLUE) for _ in range(images)))


def count(image: Image.Image, colour: tuple[int, int, int], tolerance: int = 0) -> int:
    return int((abs(np.asarray(image).astype(int) - np.array(colour)) <= tolerance).all(axis=-1).sum())


@pytest.mark.parametrize(("number", "columns", "rows"), [(1, 1, 1), (4, 4, 1), (5, 4, 2)])
def test_grid(number: int, columns: int, rows: int) -> None:
    single = draw_contact_sheet([example(True)])
    sheet = draw_contact_sheet([example(True)] * number)
    assert sheet.size == (columns * CELL_WIDTH, rows * single.height)


def test_outcome_is_green_or_red() -> None:
    right, wrong = draw_contact_sheet([example(True)]), draw_contact_sheet([example(False)])
    assert count(right, GREEN) > 50 and count(right, RED) == 0
    assert count(wrong, RED) > 50 and count(wrong, GREEN) == 0


@pytest.mark.parametrize("images", [1, 2, 3, 4, 20])
def test_pictures_are_enlarged(images: int) -> None:
    sheet = draw_contact_sheet([example(True, images)])
    shown = min(images, MAX_FRAMES)
    assert count(sheet, BLUE) > shown * 40 * 40


def test_text_alone_has_no_picture_and_no_blind_line() -> None:
    assert draw_contact_sheet([example(True, 0)]).height < draw_contact_sheet([example(True, 1)]).height - 250


def test_boxes_are_drawn() -> None:
    box = "[[250, 250, 750, 750]]"
    plain, drawn = (
        draw_contact_sheet([example(False, prediction=text, reference="[[0, 0, 500, 500]]")]).crop((0, 44, 420, 294))
        for text in ("nowhere", box)
    )
    assert count(plain, RED) == 0 and count(plain, GREY, 50) > 300
    assert count(drawn, RED) > 100


def test_long_text_is_cut() -> None:
    sheet = draw_contact_sheet([example(True, prediction="word " * 500)])
    assert sheet.height < 600


@pytest.mark.parametrize("text", ["WWWW WWWW" * 8, "iiii " * 40, "A red circle and a blue square, at the left. " * 3])
def test_lines_fit_and_are_filled(text: str) -> None:
    widths = [_font().getlength(line) for line, _ in _wrap("model", text, RED)]
    assert max(widths) <= CELL_WIDTH - 2 * MARGIN
    assert max(widths) > 0.7 * (CELL_WIDTH - 2 * MARGIN) or "W" in text


@pytest.mark.parametrize(
    ("question", "shown"),
    [
        ("<image>\nIs it red?", "Is it red?"),
        ("Image-1: <image>\nImage-2: <image>\nAlike?", "Alike?"),
        ("Frame-1: <image>\nFrame-2: <image>\nWhat\nnow?", "What now?"),
        ("Is <image> red?", "Is red?"),
        ("Where is <ref>it</ref>?", "Where is <ref>it</ref>?"),
    ],
)
def test_show_question(question: str, shown: str) -> None:
    assert show_question(question) == shown


def test_frames_are_spread() -> None:
    frames = [Image.new("RGB", (i + 1, 1)) for i in range(20)]
    picked = [image.width for image in _pick_frames(frames)]
    assert len(picked) == MAX_FRAMES and picked[0] == 1 and picked[-1] == 20 and picked == sorted(set(picked))
    assert len(_pick_frames(frames[:3])) == 3


def test_no_examples() -> None:
    with pytest.raises(ValueError, match="at least one"):
        draw_contact_sheet([])
