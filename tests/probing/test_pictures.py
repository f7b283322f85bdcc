"""The public layouts, as tiny folders: ImageNet, -V2, -A/-R, -Sketch, ReaL, flat with a list, WebDataset."""

import io
import json
import logging
import tarfile

import numpy as np
import pytest

from internvl_lab.config import ProbeSetConfig
from internvl_lab.errors import ConfigError, SampleError, ShardError
from internvl_lab.probing.pictures import open_set

CLASSES = tuple(f"n0{i:07d}" for i in range(12))


@pytest.fixture
def imagenet(tmp_path, write_picture):
    """root/train/<wnid>/<wnid>_k.JPEG and root/val/<wnid>/ILSVRC2012_val_0000000k.JPEG of 12 classes."""
    for i, wnid in enumerate(CLASSES):
        for k in range(2):
            write_picture(tmp_path / "train" / wnid / f"{wnid}_{k}.JPEG", i)
        write_picture(tmp_path / "val" / wnid / f"ILSVRC2012_val_{i + 1:08d}.JPEG", i)
    return tmp_path


def test_the_folder_layout_names_the_classes(imagenet):
    train = open_set("train", ProbeSetConfig(str(imagenet / "train")))
    assert train.targets == {"class": CLASSES}
    assert train.labels[:, 0].tolist() == [i for i in range(12) for _ in range(2)]
    assert train.read(3).size == (40, 30)
    assert train.read(3).mode == "RGB"


def test_a_subset_of_classes_keeps_their_indices_and_restricts_answers(tmp_path, write_picture):
    for i in (3, 7, 11):
        write_picture(tmp_path / "a" / CLASSES[i] / "0.000116_digital clock _ digital clock_0.865662.jpg", i)
    (tmp_path / "a" / "README.txt").write_text("ImageNet-A")
    found = open_set("IN-A", ProbeSetConfig(str(tmp_path / "a"), restrict=True), CLASSES)
    assert found.labels[:, 0].tolist() == [3, 7, 11]
    assert found.among == (3, 7, 11)


def test_numbered_folders_are_indices_not_names_in_order(tmp_path, write_picture):
    """V2's folders are 0 ... 999: as strings 10 comes before 2."""
    for i in (0, 2, 10):
        write_picture(tmp_path / "v2" / str(i) / "picture.jpeg", i)
    found = open_set("IN-V2", ProbeSetConfig(str(tmp_path / "v2")), CLASSES)
    assert dict(zip(found.keys, found.labels[:, 0].tolist(), strict=True)) == {
        "0/picture.jpeg": 0,
        "10/picture.jpeg": 10,
        "2/picture.jpeg": 2,
    }


def test_real_accepts_several_classes_and_leaves_out_pictures_without(imagenet):
    entries = [[i, (i + 1) % 12] if i % 3 else [] for i in range(12)]
    (imagenet / "real.json").write_text(json.dumps(entries))
    config = ProbeSetConfig(str(imagenet / "val"), real=str(imagenet / "real.json"))
    found = open_set("IN-ReaL", config, CLASSES)
    assert found.accepted == {i: (i, (i + 1) % 12) for i in range(12) if i % 3}
    (imagenet / "real.json").write_text("[[0]]")
    with pytest.raises(ConfigError, match=r"ILSVRC2012_val_00000002.*1 entries"):
        open_set("IN-ReaL", config, CLASSES)
    (imagenet / "real.json").write_text("[[0]")
    with pytest.raises(ConfigError, match=r"no readable real\.json"):
        open_set("IN-ReaL", config, CLASSES)


def test_the_flat_layout_reads_its_list(tmp_path, write_picture, caplog):
    for k in range(3):
        write_picture(tmp_path / "flat" / f"ILSVRC2012_val_{k + 1:08d}.JPEG", k)
    (tmp_path / "val.txt").write_text("ILSVRC2012_val_00000001.JPEG 4\nval/ILSVRC2012_val_00000003.JPEG 11\n")
    config = ProbeSetConfig(str(tmp_path / "flat"), labels=str(tmp_path / "val.txt"))
    with caplog.at_level(logging.WARNING):
        found = open_set("val", config, CLASSES)
    assert found.labels[:, 0].tolist() == [4, -1, 11]
    assert "1 of 3 pictures have no label" in caplog.text
    (tmp_path / "val.txt").write_text("ILSVRC2012_val_00000001.JPEG four\n")
    with pytest.raises(ConfigError, match="four"):
        open_set("val", config, CLASSES)


def write_tar(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_the_webdataset_layout_is_read_in_place(tmp_path, write_picture):
    data = [write_picture(tmp_path / f"{k}.jpg", k).read_bytes() for k in range(3)]
    folder = tmp_path / "wds"
    folder.mkdir()
    write_tar(
        folder / "train-0000.tar",
        [("n01/a.jpg", data[0]), ("n01/a.cls", b"2"), ("n01/a.json", b"{}"), ("n02/a.jpg", data[1])],
    )
    write_tar(folder / "train-0001.tar", [("b.cls", b"0\n"), ("b.jpg", data[2])])
    found = open_set("train", ProbeSetConfig(str(folder)))
    assert found.labels[:, 0].tolist() == [2, -1, 0]
    assert found.targets == {"class": ("0", "1", "2")}
    other = open_set("flat", ProbeSetConfig(str(tmp_path), labels=str(write_list(tmp_path))), CLASSES)
    assert np.array_equal(np.array(found.read(2)), np.array(other.read(2)))
    write_tar(folder / "train-0001.tar", [("b.cls", b"dog"), ("b.jpg", data[2])])
    with pytest.raises(ShardError, match="dog"):
        open_set("train", ProbeSetConfig(str(folder)))
    (folder / "train-0001.tar").write_bytes((folder / "train-0000.tar").read_bytes()[:2000])
    with pytest.raises(ShardError, match="truncated"):
        open_set("train", ProbeSetConfig(str(folder)))


def write_list(folder):
    file = folder / "list.txt"
    file.write_text("".join(f"{k}.jpg {k}\n" for k in range(3)))
    return file


def test_classes_that_do_not_match_are_refused(tmp_path, write_picture):
    write_picture(tmp_path / "a" / "n99999999" / "x.jpg")
    with pytest.raises(ConfigError, match=r"n99999999.*12 training classes"):
        open_set("IN-A", ProbeSetConfig(str(tmp_path / "a")), CLASSES)
    write_picture(tmp_path / "v2" / "12" / "x.jpg")
    with pytest.raises(ConfigError, match=r"'12'.*12 training classes"):
        open_set("IN-V2", ProbeSetConfig(str(tmp_path / "v2")), CLASSES)
    (tmp_path / "list.txt").write_text("x.jpg 12")
    write_picture(tmp_path / "flat" / "x.jpg")
    with pytest.raises(ConfigError, match="class 12"):
        open_set("val", ProbeSetConfig(str(tmp_path / "flat"), labels=str(tmp_path / "list.txt")), CLASSES)


def test_no_folder_and_no_pictures_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        open_set("val", ProbeSetConfig(str(tmp_path / "nowhere")))
    (tmp_path / "n01").mkdir()
    with pytest.raises(ConfigError, match="holds no pictures"):
        open_set("val", ProbeSetConfig(str(tmp_path)))


def test_an_empty_class_is_said_and_kept(imagenet, caplog):
    (imagenet / "train" / "n09999999").mkdir()
    with caplog.at_level(logging.WARNING):
        train = open_set("train", ProbeSetConfig(str(imagenet / "train")))
    assert len(train.targets["class"]) == 13
    assert "1 of 13 classes have no picture" in caplog.text


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_other_modes_are_read_and_broken_files_condemn_themselves(tmp_path, write_picture, mode):
    write_picture(tmp_path / "c" / "a.jpg", 1, mode=mode)
    (tmp_path / "c" / "b.jpg").write_bytes((tmp_path / "c" / "a.jpg").read_bytes()[:200])
    found = open_set("x", ProbeSetConfig(str(tmp_path)))
    assert found.read(0).mode == "RGB"
    with pytest.raises(SampleError, match=r"c/b\.jpg"):
        found.read(1)


def test_a_part_of_a_set_is_spread_over_it(imagenet):
    train = open_set("train", ProbeSetConfig(str(imagenet / "train")))
    part = train.first(6)
    assert len(part) == len(part.labels) == 6
    assert part.labels[0, 0] == 0
    assert part.labels[-1, 0] == 11
    assert np.array_equal(np.array(part.read(5)), np.array(train.read(23)))
    assert part.fingerprint != train.fingerprint
    assert train.first(99) is train


def test_tars_of_both_splits_may_lie_in_one_folder(tmp_path, write_picture):
    """As in timm's WebDataset release of ImageNet."""
    data = write_picture(tmp_path / "a.jpg").read_bytes()
    folder = tmp_path / "wds"
    folder.mkdir()
    write_tar(folder / "imagenet1k-train-0000.tar", [("t.jpg", data), ("t.cls", b"1")])
    write_tar(folder / "imagenet1k-validation-00.tar", [("v.jpg", data), ("v.cls", b"0")])
    train = open_set("train", ProbeSetConfig(str(folder / "imagenet1k-train-*.tar")))
    assert train.keys == ("imagenet1k-train-0000.tar/t",)
    test = open_set("val", ProbeSetConfig(str(folder / "imagenet1k-validation-*.tar")), train.targets["class"])
    assert test.keys == ("imagenet1k-validation-00.tar/v",)
    write_picture(folder / "n01" / "x.jpg")
    with pytest.raises(ConfigError, match="holds no pictures"):
        open_set("val", ProbeSetConfig(str(folder / "val-*.tar")))


def test_other_pictures_of_the_same_names_have_another_fingerprint(tmp_path, write_picture):
    """Or their features would be those of the first set, out of the cache."""
    for folder, level in (("a", 0), ("b", 1)):
        write_picture(tmp_path / folder / "n01" / "x.jpg", level)
        write_picture(tmp_path / folder / "n02" / "x.jpg", level + 1)
    found = [open_set("train", ProbeSetConfig(str(tmp_path / folder))).fingerprint for folder in ("a", "b", "a")]
    assert found[0] == found[2] != found[1]
    write_picture(tmp_path / "a" / "n01" / "x.jpg", 5)
    assert open_set("train", ProbeSetConfig(str(tmp_path / "a"))).fingerprint != found[0]


def test_a_set_without_any_label_is_refused(tmp_path, write_picture):
    picture = write_picture(tmp_path / "flat" / "ILSVRC2012_val_00000001.jpg")
    (tmp_path / "list.txt").write_text("other.jpg 0\n")
    with pytest.raises(ConfigError, match="none of the 1 pictures"):
        open_set("val", ProbeSetConfig(str(tmp_path / "flat"), labels=str(tmp_path / "list.txt")), CLASSES)
    write_tar(tmp_path / "flat" / "a.tar", [("a.jpg", picture.read_bytes())])
    with pytest.raises(ConfigError, match=r"KEY\.cls"):
        open_set("train", ProbeSetConfig(str(tmp_path / "flat")))
    write_picture(tmp_path / "val" / CLASSES[0] / "ILSVRC2012_val_00000001.JPEG")
    (tmp_path / "real.json").write_text("[[]]")
    with pytest.raises(ConfigError, match="none of the 1 pictures"):
        open_set("val", ProbeSetConfig(str(tmp_path / "val"), real=str(tmp_path / "real.json")), CLASSES)


@pytest.mark.parametrize("content", ['{"a": 1}', "[5, [1]]", "no json"])
def test_a_file_that_is_no_real_json_is_refused(imagenet, content):
    (imagenet / "real.json").write_text(content)
    config = ProbeSetConfig(str(imagenet / "val"), real=str(imagenet / "real.json"))
    with pytest.raises(ConfigError, match=r"no readable real\.json"):
        open_set("IN-ReaL", config, CLASSES)


def test_a_list_in_another_encoding_is_one_clear_error(tmp_path, write_picture):
    write_picture(tmp_path / "flat" / "x.jpg")
    (tmp_path / "list.txt").write_bytes("x.jpg 0\n".encode("utf-16"))
    with pytest.raises(ConfigError, match="not NAME CLASS_INDEX"):
        open_set("val", ProbeSetConfig(str(tmp_path / "flat"), labels=str(tmp_path / "list.txt")), CLASSES)


def test_hidden_folders_are_no_classes(imagenet):
    (imagenet / "train" / ".ipynb_checkpoints").mkdir()
    assert open_set("train", ProbeSetConfig(str(imagenet / "train"))).targets["class"] == CLASSES
