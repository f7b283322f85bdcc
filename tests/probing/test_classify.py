"""Probing one encoder: cached = uncached, rates chosen off the test set, public layouts end to end."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from internvl_lab.config import ClassificationConfig, ProbeConfig, ProbeDataConfig, ProbeSetConfig, ProbeWorldConfig
from internvl_lab.errors import ConfigError, SampleError, ShardError
from internvl_lab.probing.classify import Classifier, ProbeData, open_data
from internvl_lab.probing.features import Features

WORLD = ProbeDataConfig(miniworld=ProbeWorldConfig(num_train=120, num_test=60))
QUICK = ClassificationConfig(
    depths=(1, -1), learning_rates=(0.3, 3.0), batch_size=32, epochs=2, ema_decay=0.9, augment=False, cache=True
)


@pytest.fixture
def make(encoder, build_trainer, tmp_path):
    def make(config, data=None, **options):
        data = data or open_data(config.data)
        place = (tmp_path / "features", build_trainer, torch.device("cpu"))
        return Classifier(encoder, data, config, *place, **options)

    return make


@pytest.mark.parametrize("augment", [False, True])
def test_cached_and_uncached_features_give_the_same_accuracy(make, augment):
    """Augmented, the cache holds as many views as there are epochs: each epoch then sees the same crops."""
    found = {}
    for cache in (True, False):
        settings = replace(QUICK, cache=cache, augment=augment, views=QUICK.epochs)
        found[cache] = make(ProbeConfig(data=WORLD, classification=settings)).run(1)
    assert [replace(s, accuracy=0, ema_accuracy=0) for s in found[True]] == [
        replace(s, accuracy=0, ema_accuracy=0) for s in found[False]
    ]
    for one, other in zip(found[True], found[False], strict=True):
        # the encoder's batches differ: a last bit may flip one answer of 60
        assert one.accuracy == pytest.approx(other.accuracy, abs=1.01 / 60)
        assert one.ema_accuracy == pytest.approx(other.ema_accuracy, abs=1.01 / 60)


def test_one_run_scores_every_head_depth_target_and_test(make):
    classifier = make(ProbeConfig(data=WORLD, classification=QUICK))
    scores = classifier.run(0)
    assert len(scores) == len({(s.head, s.depth, s.target, s.test) for s in scores}) == 2 * 2 * 4
    assert {s.learning_rate for s in scores} <= {0.3, 3.0}
    assert {s.n for s in scores} == {60}
    assert classifier.run(0) == scores
    assert classifier.run(1) != scores
    free = classifier.without_training()
    assert {s.head for s in free} == {"knn", "class_mean"}
    assert len(free) == 2 * 2 * 4
    color = {(s.head, s.depth): s.accuracy for s in (*scores, *free) if s.target == "color"}
    assert max(color.values()) > 0.3  # chance is 0.125, and colours need no training of the encoder


def test_pictures_that_choose_the_rate_are_not_trained_on(make):
    trained, selection = make(ProbeConfig(data=WORLD, classification=QUICK))._split()
    assert not set(trained) & set(selection)
    assert len(trained) + len(selection) == 120
    assert 0 < len(selection) < 40
    one = replace(QUICK, learning_rates=(0.1,))
    trained, selection = make(ProbeConfig(data=WORLD, classification=one))._split()
    assert (len(trained), len(selection)) == (120, 0)


def test_missing_labels_and_broken_pictures_are_left_out(make):
    data = open_data(WORLD)
    labels = data.train.labels.copy()
    labels[:100] = -1
    labels[100, 1] = -1  # one target of a picture
    test = replace(data.tests["miniworld"], labels=np.full((60, 4), -1))
    data = ProbeData(replace(data.train, labels=labels), {"all": data.tests["miniworld"], "none": test})
    classifier = make(ProbeConfig(data=WORLD, classification=replace(QUICK, learning_rates=(0.1,))), data)
    trained, _ = classifier._split()
    assert trained.tolist() == list(range(100, 120))
    scores = classifier.run(0)
    assert {s.n for s in scores if s.test == "none"} == {0}
    assert all(np.isnan(s.accuracy) for s in scores if s.test == "none")
    assert {s.n for s in scores if s.test == "all"} == {60}


def unreadable(pictures, *broken):
    def read(i):
        if i in broken:
            raise SampleError(pictures.keys[i], "corrupt_image")
        return pictures.read(i)

    return replace(pictures, read=read, fingerprint=f"without {broken}")


@pytest.mark.parametrize("cache", [True, False])
def test_unreadable_pictures_are_left_out_even_where_they_fill_a_batch(make, cache):
    """Tests are read 29 + 29 + 2 at a time here, and training pictures two by two."""
    data = open_data(WORLD)
    tests = {"miniworld": unreadable(data.tests["miniworld"], 58, 59)}
    settings = replace(QUICK, cache=cache, learning_rates=(0.3,), heads=("linear",), batch_size=29)
    scores = make(ProbeConfig(data=WORLD, classification=settings), ProbeData(data.train, tests)).run(0)
    assert {s.n for s in scores} == {58}
    train = unreadable(data.train.first(9), 4)
    scores = make(ProbeConfig(data=WORLD, classification=replace(settings, batch_size=2)), ProbeData(train, tests)).run(
        0
    )
    assert all(np.isfinite(s.accuracy) for s in scores)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_set_that_cannot_be_read_is_refused(make, cache, split):
    data = open_data(WORLD, 12)
    sets = {"train": data.train, "test": data.tests["miniworld"]}
    sets[split] = unreadable(sets[split], *range(12))
    settings = replace(QUICK, cache=cache, learning_rates=(0.3,), heads=("linear",))
    config = ProbeConfig(data=WORLD, classification=settings)
    with pytest.raises(ShardError, match=r"pictures of .*miniworld.* cannot be read"):
        make(config, ProbeData(sets["train"], {"test": sets["test"]}), max_bad_share=0.9).run(0)


def test_comparisons_leave_tokens_on_the_disk(make, monkeypatch):
    classifier = make(ProbeConfig(data=WORLD, classification=QUICK))
    fetched = []
    fetch = Features.fetch

    def spy(self, *args):
        found = fetch(self, *args)
        fetched.extend(found)
        return found

    monkeypatch.setattr(Features, "fetch", spy)
    assert classifier.without_training()
    assert set(fetched) == {"linear@1", "linear@3"}


def test_too_few_pictures_and_odd_sizes_are_refused(make):
    data = open_data(WORLD)
    labels = data.train.labels.copy()
    labels[1:] = -1
    data = ProbeData(replace(data.train, labels=labels), data.tests)
    with pytest.raises(ConfigError, match="two labelled training pictures"):
        make(ProbeConfig(data=WORLD, classification=replace(QUICK, learning_rates=(0.1,))), data).run(0)
    with pytest.raises(ConfigError, match=r"image_size=30.*14 pixels"):
        make(ProbeConfig(data=WORLD, classification=QUICK, image_size=30))


def test_training_can_be_shortened(make):
    classifier = make(ProbeConfig(data=WORLD, classification=QUICK), max_steps=1)
    assert len(classifier.run(0)) == 16


def test_imagenet_and_its_variants_end_to_end(make, tmp_path, write_picture):
    """Six classes told by colour; A restricts the answers, ReaL accepts two classes and leaves out one picture."""
    classes = [f"n0{i:07d}" for i in range(6)]
    number = 0
    for i, wnid in enumerate(classes):
        for k in range(8):
            write_picture(tmp_path / "train" / wnid / f"{wnid}_{k}.JPEG", i, size=(30 + 9 * k, 33))
        for _ in range(3):
            number += 1
            mode = "CMYK" if number == 4 else "L" if number == 99 else "RGB"
            write_picture(tmp_path / "val" / wnid / f"ILSVRC2012_val_{number:08d}.JPEG", i, mode=mode)
    for i in (1, 4):
        write_picture(tmp_path / "a" / classes[i] / "x.jpg", i)
    (tmp_path / "real.json").write_text(json.dumps([[k // 3, 5] if k else [] for k in range(18)]))
    tests = {
        "IN-1K": ProbeSetConfig(str(tmp_path / "val")),
        "IN-ReaL": ProbeSetConfig(str(tmp_path / "val"), real=str(tmp_path / "real.json")),
        "IN-A": ProbeSetConfig(str(tmp_path / "a"), restrict=True),
    }
    data = ProbeDataConfig("imagenet", ProbeSetConfig(str(tmp_path / "train")), tests, num_classes=6)
    settings = replace(QUICK, depths=(-1,), learning_rates=(3.0,), epochs=12, batch_size=16, augment=True, views=2)
    scores = make(ProbeConfig(data=data, classification=settings)).run(0)
    found = {(s.head, s.test): s for s in scores}
    assert found["linear", "IN-1K"].n == 18
    assert found["linear", "IN-ReaL"].n == 17
    assert found["linear", "IN-A"].n == 2
    assert found["linear", "IN-1K"].accuracy > 0.6
    assert found["linear", "IN-ReaL"].accuracy >= found["linear", "IN-1K"].accuracy * 17 / 18 - 1 / 17
    with pytest.raises(ConfigError, match=r"num_classes=1000, but .* has 6"):
        open_data(replace(data, num_classes=1000))


def test_sets_can_be_shortened():
    data = open_data(WORLD, 10)
    assert (len(data.train), len(data.tests["miniworld"])) == (10, 10)
