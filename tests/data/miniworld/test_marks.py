from random import Random

import numpy as np

from internvl_lab.data.miniworld import generate
from internvl_lab.data.miniworld.canvas import paint_text
from internvl_lab.data.miniworld.marks import mark, recording, regions_of
from internvl_lab.data.miniworld.scene import Thing, arrange, make_grid, paint_scene


def test_nothing_is_recorded_outside_the_block():
    canvas = np.zeros((4, 4, 3), np.uint8)
    mark(canvas, (0, 0, 1, 1), "before")
    with recording() as marks:
        mark(canvas, (1, 1, 2, 2), "inside")
    mark(canvas, (2, 2, 3, 3), "after")
    assert [(box, words) for _, box, words in marks] == [((1, 1, 2, 2), "inside")]


def test_regions_are_sorted_by_picture():
    scenes = [arrange(Random(seed), make_grid((112, 112), 2), [Thing("red", "circle")]) for seed in (1, 2)]
    with recording() as marks:
        canvases = tuple(paint_scene(scene) for scene in scenes)
    regions = regions_of(canvases, marks)
    assert regions == [[[*scene.things[0].box, "red circle"]] for scene in scenes]


def test_every_character_has_its_box():
    canvas = np.zeros((20, 60, 3), np.uint8)
    with recording() as marks:
        paint_text(canvas, "A 7", 2, 3, 2, 14, (255, 255, 255))
    assert [(box, words) for _, box, words in marks] == [((2, 3, 12, 17), "A"), ((30, 3, 40, 17), "7")]
    for _, (x0, y0, x1, y1), _ in marks:
        assert canvas[y0:y1, x0:x1].any()


def test_samples_carry_regions_for_each_picture():
    for sample in generate("pretrain", 22, seed=3):
        assert len(sample.record.get("regions", [])) == len(sample.images)
        if sample.record["task"] not in ("text_only", "multi_image"):
            assert all(sample.record["regions"])
