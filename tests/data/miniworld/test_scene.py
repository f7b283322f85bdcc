from __future__ import annotations

from random import Random

import numpy as np
import pytest

from internvl_lab.data.miniworld import scene as s
from internvl_lab.data.miniworld.vocabulary import COLORS


def _scene(seed: int = 0, number: int = 3) -> s.Scene:
    rng = Random(seed)
    return s.arrange(rng, s.make_grid((112, 112), 2), s.random_things(rng, number))


def test_words_of_a_scene() -> None:
    grid = s.Grid(100, 100, 2, 2)
    things = (
        s.Placed(s.Thing("red", "circle"), 0, 1, (60, 10, 90, 40)),
        s.Placed(s.Thing("orange", "circle"), 1, 0, (10, 60, 40, 90)),
    )
    scene = s.Scene(grid, things, 0)
    assert scene.caption == "a red circle, an orange circle"
    assert scene.table == "none, red circle; orange circle, none"
    assert scene.description == "red circle at 1 2; orange circle at 2 1"
    assert scene.signature == "2x2:red circle at 1 2; orange circle at 2 1"
    assert (scene.count("circle"), scene.count("star")) == (2, 0)


@pytest.mark.parametrize("size", [(100, 108), (224, 112), (112, 224), (336, 112)])
def test_things_lie_in_their_own_cells_in_reading_order(size: tuple[int, int]) -> None:
    rng = Random(1)
    for _ in range(50):
        grid = s.make_grid(size, 2)
        scene = s.arrange(rng, grid, s.random_things(rng, 4))
        cells = [(p.row, p.column) for p in scene.things]
        assert cells == sorted(set(cells))
        for placed in scene.things:
            x0, y0, x1, y1 = placed.box
            assert placed.column * size[0] / grid.columns - 1 <= x0 < x1 <= (placed.column + 1) * size[0] / grid.columns
            assert placed.row * size[1] / grid.rows - 1 <= y0 < y1 <= (placed.row + 1) * size[1] / grid.rows
            assert x1 - x0 >= 20


def test_grid_follows_the_aspect_ratio() -> None:
    assert s.make_grid((336, 112), 2) == s.Grid(336, 112, 2, 6)
    assert s.make_grid((108, 118), 3) == s.Grid(108, 118, 3, 3)


def test_random_things_are_different_and_avoid() -> None:
    avoid = s.random_things(Random(0), 40)
    things = s.random_things(Random(1), 8, avoid)
    assert len(set(things) | set(avoid)) == 48


def test_sizes_are_mostly_one_tile() -> None:
    rng = Random(3)
    ratios = [w / h for w, h in (s.random_size(rng) for _ in range(2000))]
    assert sum(abs(ratio - 1) < 0.1 for ratio in ratios) / 2000 == pytest.approx(0.88, abs=0.03)
    assert min(ratios) < 0.6
    assert max(ratios) > 2.7


def test_painting_depends_on_the_scene_alone_and_shows_each_thing_at_its_place() -> None:
    scene = _scene(5)
    first, again = s.paint_scene(scene), s.paint_scene(scene)
    assert np.array_equal(first, again)
    assert first.shape == (scene.grid.height, scene.grid.width, 3)
    for placed in scene.things:
        x0, y0, x1, y1 = placed.box
        brightest = first[y0:y1, x0:x1].reshape(-1, 3).astype(int)
        target = np.array(COLORS[placed.thing.color])
        assert abs(brightest - target).max(axis=1).min() <= 10
    empty = s.paint_scene(s.Scene(scene.grid, (), scene.paint_seed))
    assert empty.max() < 80


def test_article() -> None:
    assert [s.article(word) for word in ("orange", "red")] == ["an", "a"]
