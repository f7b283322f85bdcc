import numpy as np
import pytest
from PIL import Image

from internvl_lab.probing.grids import CAPTION_HEIGHT, CELL, GAP, draw_grid, palette


def test_every_class_has_a_colour_of_its_own():
    colours = palette(171)
    assert len({tuple(colour) for colour in colours[:171].tolist()}) == 171
    assert colours[255].tolist() == [255, 255, 255]


def test_a_row_holds_picture_truth_and_prediction():
    truth = np.array([[1, 1], [255, 2]], np.uint8)
    sheet = np.array(draw_grid([(Image.new("RGB", (2, 2), (9, 8, 7)), truth, np.full((2, 2), 2, np.uint8))], 3))
    assert sheet.shape == (CAPTION_HEIGHT + CELL, 3 * CELL + 2 * GAP, 3)
    colours, y = palette(3), CAPTION_HEIGHT + 10
    assert sheet[y, 10].tolist() == [9, 8, 7]
    assert sheet[y, CELL + GAP + 10].tolist() == colours[1].tolist()
    assert sheet[y, 2 * (CELL + GAP) + 10].tolist() == colours[2].tolist()
    assert sheet[-10, 2 * (CELL + GAP) + 10].tolist() == [255, 255, 255]  # not judged


def test_no_examples_are_an_error():
    with pytest.raises(ValueError, match="at least one"):
        draw_grid([], 3)
