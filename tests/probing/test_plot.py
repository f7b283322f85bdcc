import io

import numpy as np
from PIL import Image

from internvl_lab.probing.plot import draw_heads, draw_layerwise
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


def test_every_head_of_every_encoder_has_a_bar():
    summaries = [
        Summary(encoder, head, 4, "mIoU", test, 0.2 + 0.1 * i, 0.02, 3)
        for test in ("ADE20K", "COCO")
        for encoder in ("a", "b")
        for i, head in enumerate(("linear", "upernet", "full"))
    ]
    both, one = open_png(draw_heads(summaries)), open_png(draw_heads(summaries[:3]))
    blue, orange = (31, 119, 180), (255, 127, 14)
    assert (both == blue).all(axis=-1).any()
    assert (both == orange).all(axis=-1).any()
    assert (one == blue).all(axis=-1).any()
    assert not (one == orange).all(axis=-1).any()


def test_a_test_without_a_number_is_drawn_empty():
    assert open_png(draw_heads([Summary("a", "linear", 4, "mIoU", "x", float("nan"), 0.0, 1)])).std() > 0
