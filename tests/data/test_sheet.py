"""The grid of contact sheets: places, heights, outlines."""

from __future__ import annotations

from PIL import Image

from internvl_lab.data.sheet import OUTLINE, lay_out


def test_cells_stand_row_by_row_and_rows_are_as_high_as_their_highest() -> None:
    cells = [Image.new("RGB", (10, height), color) for height, color in ((8, "red"), (12, "lime"), (6, "blue"))]
    sheet = lay_out(cells, columns=2)
    assert sheet.size == (20, 18)
    assert [sheet.getpixel(at) for at in ((5, 4), (15, 4), (5, 15))] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert sheet.getpixel((0, 11)) == sheet.getpixel((9, 5)) == OUTLINE
    assert sheet.getpixel((15, 15)) == (255, 255, 255)


def test_few_cells_make_a_narrow_sheet() -> None:
    assert lay_out([Image.new("RGB", (10, 8))], columns=4).size == (10, 8)
