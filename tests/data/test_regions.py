import numpy as np
import pytest

from internvl_lab.config import JpegConfig, SourceConfig, TilingConfig
from internvl_lab.constants import IGNORE_INDEX
from internvl_lab.data import SampleEncoder, parse_record
from internvl_lab.data.miniworld import generate
from internvl_lab.data.regions import EMPTY_WORD, RegionTargets, regions_by_image
from internvl_lab.text import ChatTemplate, load_tokenizer

TILING = TilingConfig(tile_size=112, num_visual_tokens=16, max_tiles=6)


@pytest.fixture(scope="module")
def template():
    return ChatTemplate(load_tokenizer("asset:tokenizer"), "")


@pytest.fixture
def targets(template):
    return RegionTargets(template, TILING)


def words(template, ids):
    return ["" if i == IGNORE_INDEX else template.tokenizer.decode([int(i)]).strip() for i in ids]


def test_a_cell_is_asked_for_what_it_looks_at(targets, template):
    region = [28, 0, 56, 28, "K"]  # exactly the second visual token of the first row
    ids = targets.of_image((112, 112), [region], 6, True, np.random.default_rng(0))
    assert ids.shape == (16,)
    found = words(template, ids)
    assert found[1] == "K"
    assert set(found) <= {"K", "", EMPTY_WORD}
    assert found.count("K") == 1


def test_colour_and_shape_are_both_asked_for_over_time(targets, template):
    region = [0, 0, 112, 112, "red circle"]
    drawn = set()
    for seed in range(4):
        drawn |= set(words(template, targets.of_image((112, 112), [region], 6, True, np.random.default_rng(seed))))
    assert drawn == {"red", "circle"}


def test_tiles_come_row_by_row_and_the_thumbnail_last(targets, template):
    regions = [[0, 0, 112, 112, "A"], [112, 0, 224, 112, "7"]]
    ids = targets.of_image((224, 112), regions, 6, True, np.random.default_rng(0))
    found = words(template, ids)
    assert found[:16] == ["A"] * 16
    assert found[16:32] == ["7"] * 16
    assert found[32:] == ["A", "A", "7", "7"] * 4


def test_crowded_cells_are_not_asked(targets):
    regions = [[x, y, x + 6, y + 6, "A"] for x in (1, 10, 19) for y in (1, 10)]
    ids = targets.of_image((112, 112), regions, 6, True, np.random.default_rng(0))
    assert ids[0] == IGNORE_INDEX


def test_words_that_are_not_one_token_are_left_out(targets):
    ids = targets.of_image((112, 112), [[0, 0, 112, 112, "zymurgy"]], 6, True, np.random.default_rng(0))
    assert set(ids.tolist()) == {IGNORE_INDEX}


def test_records_without_regions_for_every_image_have_none():
    assert regions_by_image({}, 1) == []
    assert regions_by_image({"regions": [[]]}, 2) == []
    assert regions_by_image({"regions": [[], [[0, 0, 1, 1, "A"]]]}, 2) == [[], [[0, 0, 1, 1, "A"]]]


def test_the_encoder_adds_targets_and_leaves_the_answers_alone(template):
    plain = SampleEncoder(template, TILING, JpegConfig(), "square", "sample")
    dense = SampleEncoder(template, TILING, JpegConfig(), "square", "sample", regions=True)
    for raw in generate("finetune", 22, seed=1):
        record = parse_record(raw.record, raw.key, num_images=len(raw.images))
        images = [data for _, data in raw.images]
        options = {"seed": 0, "epoch": 0, "source": SourceConfig(shards="x"), "source_id": 0}
        a, b = plain.encode(record, images, **options), dense.encode(record, images, **options)
        visual = a.input_ids == template.context_id
        assert np.array_equal(a.input_ids, b.input_ids)
        assert np.array_equal(a.tiles, b.tiles)
        assert np.array_equal(a.labels[~visual], b.labels[~visual])
        assert np.array_equal(a.loss_weights[~visual], b.loss_weights[~visual])
        asked = b.labels[visual] != IGNORE_INDEX
        assert asked.any() == bool(images)
        assert (b.loss_weights[visual] > 0).tolist() == asked.tolist()
        assert b.loss_weights[visual][asked].sum() == pytest.approx(asked.sum() ** 0.5, rel=1e-5)
        assert np.array_equal(dense.encode(record, images, **options).labels, b.labels)
