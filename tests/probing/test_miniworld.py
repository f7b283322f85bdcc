import numpy as np

from internvl_lab.config import ProbeWorldConfig
from internvl_lab.data.miniworld.scene import Thing
from internvl_lab.probing.miniworld import CLASSES, TARGETS, draw_labelled, draw_masked, paint_masked, world_pictures

CONFIG = ProbeWorldConfig(num_train=300, num_test=100)


def test_labels_say_what_is_painted():
    drawn = draw_labelled("train", 5, 0)
    shape, color, count, glyph = (c[i] for c, i in zip(TARGETS.values(), drawn.labels, strict=True))
    assert {p.thing for p in drawn.scene.things} == {Thing(color, shape)}
    assert str(len(drawn.scene.things)) == count
    assert drawn.glyph == glyph
    canvas = drawn.paint()
    x, y = drawn.glyph_at
    box = canvas[y : y + 7 * drawn.glyph_scale, x : x + 5 * drawn.glyph_scale]
    assert (box == 206).all(axis=-1).sum() >= 6 * drawn.glyph_scale**2


def test_the_glyph_covers_no_thing():
    for index in range(200):
        drawn = draw_labelled("train", index, 0)
        x, y = drawn.glyph_at
        for placed in drawn.scene.things:
            x0, y0, x1, y1 = placed.box
            apart = x >= x1 or y >= y1 or x + 5 * drawn.glyph_scale <= x0 or y + 7 * drawn.glyph_scale <= y0
            assert apart, index


def test_splits_share_no_combination_and_hold_every_class():
    drawn = {split: [draw_labelled(split, i, 0) for i in range(400)] for split in ("train", "test")}
    combinations = {split: {d.combination for d in found} for split, found in drawn.items()}
    assert not combinations["train"] & combinations["test"]
    for found in drawn.values():
        labels = np.array([d.labels for d in found])
        assert [len(np.unique(column)) for column in labels.T] == [len(names) for names in TARGETS.values()]


def test_pictures_are_the_same_in_any_order():
    one, other = world_pictures(CONFIG, "test"), world_pictures(CONFIG, "test")
    last = np.array(one.read(99))
    assert np.array_equal(np.array(other.read(99)), last)
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != world_pictures(ProbeWorldConfig(300, 100, seed=1), "test").fingerprint
    assert one.labels.shape == (100, 4)


def test_masks_cover_what_is_painted():
    scene = draw_masked("train", 3, 0)
    canvas, mask = paint_masked(scene)
    assert mask.shape == canvas.shape[:2]
    shown = {CLASSES[i] for i in np.unique(mask)}
    assert shown == {"background", *(p.thing.shape for p in scene.things)}
    for placed in scene.things:
        x0, y0, x1, y1 = placed.box
        inside = mask[y0:y1, x0:x1] == CLASSES.index(placed.thing.shape)
        assert 0.2 < inside.mean() <= 1
        dark = canvas[mask == 0].astype(int)
        assert np.abs(canvas[y0:y1, x0:x1][inside].astype(int) - dark.mean(0)).sum(-1).min() > 60


def test_mask_splits_share_no_scene():
    found = {s: {draw_masked(s, i, 0).caption for i in range(200)} for s in ("train", "test")}
    assert not found["train"] & found["test"]
