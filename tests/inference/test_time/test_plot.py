from __future__ import annotations

import io

import pytest
from PIL import Image

from internvl_lab.inference.test_time.curves import Band
from internvl_lab.inference.test_time.plot import draw_curves
from internvl_lab.inference.test_time.results import Curve, Result, Row


def result(task: str) -> Result:
    band = Band(0.5, 0.4, 0.6)
    names = ("majority", "weighted", "best_of_n", "pass")
    curves = tuple(Curve(name, (1, 2, 4), (band,) * 3, (1.0, 2.0, 4.0), (1e9, 2e9, 4e9), (True,) * 3) for name in names)
    rows = tuple(Row(name, 1, band, band, 1.0, 1e9, 0.0, 0.0) for name in ("direct", "cot"))
    return Result(task, 5, 0, rows, curves)


@pytest.mark.parametrize(("tasks", "rows"), [(1, 1), (3, 2)])
def test_panels_fill_rows_of_three(tasks: int, rows: int) -> None:
    with Image.open(io.BytesIO(draw_curves([result(f"t{k}") for k in range(tasks)], "a run"))) as image:
        assert image.height == pytest.approx(130 * (3.5 * rows + 0.9), abs=2)
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20) or []}
    assert (0x1F, 0x4E, 0x99) in colours and (0xB3, 0x26, 0x1E) in colours
