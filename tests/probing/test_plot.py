import io

import numpy as np
from PIL import Image

from internvl_lab.probing.plot import draw_layerwise
from internvl_lab.probing.table import Summary


def line(encoder, head, target, depths):
    return [Summary(encoder, head, d, target, "world", 0.3 + 0.1 * d, 0.02, 3) for d in range(depths)]


def open_png(data):
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def test_encoders_of_different_depth_share_one_figure():
    summaries = [
        part
        for encoder, depths in (("a", 3), ("b", 5))
        for head in ("linear", "attention", "knn", "class_mean")
        for target in ("mean", "shape")
        for part in line(encoder, head, target, depths)
    ]
    figure = open_png(draw_layerwise(summaries))
    for colour in ((31, 119, 180), (255, 127, 14)):  # a line of each encoder
        assert (figure == colour).all(axis=-1).any()


def test_a_single_depth_is_drawn_without_dividing_by_zero():
    assert open_png(draw_layerwise(line("a", "linear", "shape", 1))).std() > 0
