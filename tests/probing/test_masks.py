"""ADE20K and COCO-Stuff as tiny folders in their public form."""

import logging

import numpy as np
import pytest
from PIL import Image

from internvl_lab.config import ProbeDataConfig, ProbeSetConfig, ProbeWorldConfig
from internvl_lab.errors import ConfigError, SampleError
from internvl_lab.probing.masks import IGNORED, LAYOUTS, open_masks, read_mask


def write_mask(path, labels, size=(30, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.resize(np.array(labels, np.uint8), (size[1], size[0]))
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def ade(tmp_path, write_picture):
    for split, names in (("training", "ADE_train_0000000{}"), ("validation", "ADE_val_0000000{}")):
        for k in (1, 2):
            name = names.format(k)
            write_picture(tmp_path / "images" / split / f"{name}.jpg", k, size=(30, 20))
            write_mask(tmp_path / "annotations" / split / f"{name}.png", [0, 1, 150])
    return tmp_path


def config(root, layout="ade20k"):
    return ProbeDataConfig(layout, ProbeSetConfig(str(root)), {"val": ProbeSetConfig(str(root))}, layout=layout)


def test_ade20k_counts_classes_from_1(ade):
    train, tests = open_masks(config(ade))
    assert (train.num_classes, len(train), len(tests["val"])) == (150, 2, 2)
    image, mask = train.read(0)
    assert (image.size, mask.shape) == ((30, 20), (20, 30))
    assert np.unique(mask).tolist() == [0, 149, IGNORED]
    assert tests["val"].keys == ("ADE_val_00000001.jpg", "ADE_val_00000002.jpg")


def test_coco_stuff_counts_from_0(tmp_path, write_picture):
    for split in ("train2017", "val2017"):
        write_picture(tmp_path / "images" / split / "000000000009.jpg", 1, size=(30, 20))
        write_mask(tmp_path / "annotations" / split / "000000000009_labelTrainIds.png", [0, 170, 255])
    train, _ = open_masks(config(tmp_path, "coco_stuff"))
    assert train.num_classes == 171
    assert np.unique(train.read(0)[1]).tolist() == [0, 170, IGNORED]


def test_coco_stuff_is_read_as_it_is_published(tmp_path, write_picture):
    """Every id of stuffthingmaps: 182 with 11 that no picture holds, told here by the names of cocostuff's list."""
    absent = {"street sign": 11, "hat": 25, "shoe": 28, "eye glasses": 29, "plate": 44, "mirror": 65, "window": 67}
    absent |= {"desk": 68, "door": 70, "blender": 82, "hair brush": 90}
    held = [label for label in range(182) if label not in absent.values()]
    for split in ("train2017", "val2017"):
        write_picture(tmp_path / "images" / split / "000000000009.jpg", 1, size=(43, 4))
        raw = write_mask(tmp_path / "annotations" / split / "000000000009.png", [*held, 255], size=(43, 4))
    train, tests = open_masks(config(tmp_path, "coco_stuff"))
    assert train.num_classes == 171
    for given in (train, tests["val"]):
        mask = given.read(0)[1]
        assert mask.ravel().tolist() == [*range(171), IGNORED]
    # spot checks against mmsegmentation's table
    for label, expected in ((0, 0), (12, 11), (26, 24), (30, 26), (89, 79), (91, 80), (181, 170), (255, 255)):
        assert set(mask[raw == label]) == {expected}
    write_mask(tmp_path / "annotations/val2017/000000000009.png", [11], size=(43, 4))
    with pytest.raises(ConfigError, match="label 11, which is none of the 171 classes"):
        tests["val"].read(0)


def test_converted_annotations_come_before_published_ones(tmp_path, write_picture):
    for split in ("train2017", "val2017"):
        write_picture(tmp_path / "images" / split / "000000000009.jpg", 1, size=(30, 20))
        write_mask(tmp_path / "annotations" / split / "000000000009.png", [181])
        write_mask(tmp_path / "annotations" / split / "000000000009_labelTrainIds.png", [170])
    assert set(open_masks(config(tmp_path, "coco_stuff"))[0].read(0)[1].ravel()) == {170}
    (tmp_path / "annotations/train2017/000000000009_labelTrainIds.png").unlink()
    assert set(open_masks(config(tmp_path, "coco_stuff"))[0].read(0)[1].ravel()) == {170}


def test_a_label_outside_the_classes_names_the_layout(ade):
    write_mask(ade / "annotations/training/ADE_train_00000001.png", [181])
    with pytest.raises(ConfigError, match=r"label 181.*150 classes.*layout"):
        open_masks(config(ade))[0].read(0)
    Image.fromarray(np.full((20, 30), 700, np.uint16)).save(ade / "annotations/training/ADE_train_00000001.png")
    with pytest.raises(ConfigError, match="label 700"):
        open_masks(config(ade))[0].read(0)
    path = ade / "colour.png"
    Image.new("RGB", (4, 4)).save(path)
    with pytest.raises(ConfigError, match="not one class index a pixel"):
        read_mask(path, LAYOUTS["ade20k"][0])


def test_what_is_broken_condemns_its_picture(ade, write_picture):
    (ade / "annotations/training/ADE_train_00000001.png").write_bytes(b"not a picture")
    write_picture(ade / "images/training/ADE_train_00000002.jpg", size=(31, 20))
    train, _ = open_masks(config(ade))
    with pytest.raises(SampleError, match="corrupt_mask"):
        train.read(0)
    with pytest.raises(SampleError, match="mask_size"):
        train.read(1)


def test_a_picture_without_annotation_is_left_out_and_said(ade, write_picture, caplog):
    write_picture(ade / "images/training/ADE_train_00000003.jpg")
    with caplog.at_level(logging.WARNING):
        train, _ = open_masks(config(ade))
    assert len(train) == 2
    assert "1 of 3 pictures have no annotation" in caplog.text
    with pytest.raises(ConfigError, match="no such folder"):
        open_masks(config(ade / "images"))
    for path in (ade / "annotations/training").iterdir():
        path.unlink()
    with pytest.raises(ConfigError, match="no picture with an annotation"):
        open_masks(config(ade))


def test_miniworld_has_seven_classes():
    train, tests = open_masks(ProbeDataConfig(miniworld=ProbeWorldConfig(20, 10)), limit=12)
    assert (len(train), len(tests["miniworld"]), train.num_classes) == (12, 10, 7)
    image, mask = train.read(3)
    assert image.size == mask.shape == (112, 112)


def test_miniworld_s_sets_have_their_own_sizes():
    train, tests = open_masks(ProbeDataConfig(miniworld=ProbeWorldConfig(num_train=3, num_test=7)))
    assert (len(train), len(tests["miniworld"])) == (3, 7)
    train, tests = open_masks(ProbeDataConfig(miniworld=ProbeWorldConfig(num_train=3, num_test=7)), 2)
    assert (len(train), len(tests["miniworld"])) == (2, 2)
