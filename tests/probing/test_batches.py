from dataclasses import replace

import numpy as np
import torch

from internvl_lab.config import ProbeWorldConfig
from internvl_lab.errors import SampleError
from internvl_lab.probing.batches import FeatureBatches, PictureBatches, build_loader, plain_order, training_order
from internvl_lab.probing.features import FeaturePlan, PictureViews, encode_set
from internvl_lab.probing.miniworld import world_pictures

GIVEN = world_pictures(ProbeWorldConfig(num_train=10, num_test=1), "train")


def test_every_epoch_holds_every_picture_once_in_another_order():
    indices = np.arange(3, 23)
    order = training_order(indices, batch_size=5, epochs=3, seed=1, max_steps=None)
    assert len(order) == 12
    epochs = [[item for step in order[4 * e : 4 * e + 4] for item in step] for e in range(3)]
    for number, epoch in enumerate(epochs):
        assert sorted(i for i, _ in epoch) == indices.tolist()
        assert {e for _, e in epoch} == {number}
    assert [i for i, _ in epochs[0]] != [i for i, _ in epochs[1]]
    assert order == training_order(indices, 5, 3, 1, None)
    assert order != training_order(indices, 5, 3, 2, None)
    assert training_order(indices, 5, 3, 1, 2) == order[:2]


def test_what_does_not_fill_a_batch_is_left_out_of_training_only():
    assert [len(step) for step in training_order(np.arange(11), 4, 1, 0, None)] == [4, 4]
    assert [len(step) for step in plain_order(np.arange(11), 4)] == [4, 4, 3]


def test_stored_views_follow_the_epochs(encoder, tmp_path):
    plan = FeaturePlan(("linear",), (3,), 28, augmented=True, views=2)
    stored = encode_set(encoder, GIVEN, plan, tmp_path, device=torch.device("cpu"), batch_size=8)
    batches = FeatureBatches(stored, GIVEN, 2)
    batch = batches[[(4, 3), (5, 0)]]
    assert torch.equal(batch["features"]["linear@3"], stored.fetch([14, 5])["linear@3"])
    assert batch["labels"].tolist() == GIVEN.labels[[4, 5]].tolist()
    assert batch["rows"].tolist() == [4, 5]


def test_pictures_that_cannot_be_read_leave_the_batch():
    def read(i):
        if i == 2:
            raise SampleError("x", "corrupt_image")
        return GIVEN.read(i)

    batches = PictureBatches(PictureViews(replace(GIVEN, read=read), 28, None), None)
    (batch,) = build_loader(batches, [[(1, 0), (2, 0), (3, 0)]])
    assert batch["rows"].tolist() == [1, 3]
    assert batch["pixel_values"].shape == (2, 3, 28, 28)
    assert batch["labels"].tolist() == GIVEN.labels[[1, 3]].tolist()


def test_a_batch_without_any_picture_is_empty():
    def read(i):
        raise SampleError("x", "corrupt_image")

    batch = PictureBatches(PictureViews(replace(GIVEN, read=read), 28, None), None)[[(1, 0), (2, 0)]]
    assert batch["pixel_values"].shape == (0, 3, 28, 28)
    assert batch["labels"].shape == (0, GIVEN.labels.shape[1])
    assert len(batch["rows"]) == 0


def test_workers_load_the_same():
    batches = PictureBatches(PictureViews(GIVEN, 28, 0), None)
    order = training_order(np.arange(10), 5, 2, 0, None)
    for one, other in zip(build_loader(batches, order), build_loader(batches, order, num_workers=1), strict=True):
        assert torch.equal(one["pixel_values"], other["pixel_values"])
