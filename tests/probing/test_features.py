"""Stored features: bits, resume after a kill, broken pictures, room on the disk."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from internvl_lab.config import ProbeWorldConfig
from internvl_lab.errors import ConfigError, SampleError, ShardError
from internvl_lab.probing import features as room
from internvl_lab.probing.features import FeaturePlan, PictureViews, encode_set, extract
from internvl_lab.probing.heads import pool_tokens
from internvl_lab.probing.miniworld import world_pictures

PLAN = FeaturePlan(("linear", "attention"), (1, 3), image_size=28)
CPU = {"device": torch.device("cpu"), "batch_size": 8}


def pictures(number=50):
    return world_pictures(ProbeWorldConfig(num_train=number, num_test=number), "train")


def test_extract_takes_the_asked_depths_and_kinds(encoder):
    pixels = torch.randint(0, 256, (3, 3, 28, 28), dtype=torch.uint8)
    found = extract(encoder, pixels, PLAN.heads, PLAN.depths)
    states = list(encoder.hidden_states(pixels))
    assert set(found) == set(PLAN.names) == {"linear@1", "linear@3", "attention@1", "attention@3"}
    assert torch.equal(found["attention@3"], states[3].bfloat16())
    assert torch.equal(found["linear@1"], pool_tokens(states[1]).bfloat16())


def test_stored_features_are_the_extracted_ones_and_are_made_once(encoder, tmp_path, monkeypatch):
    given = pictures()
    stored = encode_set(encoder, given, PLAN, tmp_path, **CPU)
    assert stored.rows_done == 50
    views = PictureViews(given, 28, None)
    block = torch.stack([views[i, 0][0] for i in range(8, 16)])
    for name, expected in extract(encoder, block, PLAN.heads, PLAN.depths).items():
        assert torch.equal(stored.fetch(range(8, 16))[name], expected), name
    monkeypatch.setattr(room, "extract", None)  # a second pass would call it
    again = encode_set(encoder, given, PLAN, tmp_path, **CPU)
    assert torch.equal(again.fetch([3])["linear@3"], stored.fetch([3])["linear@3"])


def test_encoding_leaves_every_tensor_of_the_encoder_alone(encoder, tmp_path):
    before = {name: tensor.clone() for name, tensor in encoder.tower.state_dict().items()}
    encode_set(encoder, pictures(), PLAN, tmp_path, **CPU)
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.tower.state_dict().items())


def test_views_are_rows_of_their_own(encoder, tmp_path):
    given = pictures(10)
    plan = replace(PLAN, augmented=True, views=3)
    stored = encode_set(encoder, given, plan, tmp_path, **CPU)
    assert stored.num_rows == 30
    view = PictureViews(given, 28, 0)[4, 2][0]
    expected = extract(encoder, view[None], PLAN.heads, PLAN.depths)["linear@3"][0].float()
    torch.testing.assert_close(stored.fetch([24])["linear@3"][0].float(), expected, atol=1e-2, rtol=1e-2)
    assert not torch.equal(stored.fetch([24])["linear@3"], stored.fetch([4])["linear@3"])


def slow_pictures():
    given = pictures(64)
    return replace(given, read=lambda i: (time.sleep(0.05), given.read(i))[1])


def encode_slowly(encoder, root):
    room.SAVE_EVERY_S = 0.0
    encode_set(encoder, slow_pictures(), PLAN, root, **CPU)


def test_a_killed_pass_goes_on_and_ends_with_the_same_bits(encoder, tmp_path):
    process = multiprocessing.get_context("fork").Process(target=encode_slowly, args=(encoder, tmp_path / "killed"))
    process.start()
    while not list((tmp_path / "killed").glob("*/rows.json")):
        time.sleep(0.02)
        assert process.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (folder,) = (tmp_path / "killed").iterdir()
    assert 0 < int((folder / "rows.json").read_text().split()[-1][:-1]) < 64
    read = []
    given = replace(pictures(64), read=lambda i: (read.append(i), pictures(64).read(i))[1])
    resumed = encode_set(encoder, given, PLAN, tmp_path / "killed", **CPU)
    assert 0 < len(read) < 64
    whole = encode_set(encoder, pictures(64), PLAN, tmp_path / "whole", **CPU)
    for name in PLAN.names:
        assert torch.equal(resumed.fetch(range(64))[name], whole.fetch(range(64))[name]), name


def broken(number, bad):
    given = pictures(number)

    def read(i):
        if i in bad:
            raise SampleError(given.keys[i], "corrupt_image", "cut")
        return given.read(i)

    return replace(given, read=read)


def test_a_broken_picture_is_marked_and_too_many_stop_the_pass(encoder, tmp_path, caplog):
    stored = encode_set(encoder, broken(20, {3, 17}), PLAN, tmp_path / "a", **CPU)
    assert np.flatnonzero(np.asarray(stored.valid) == 0).tolist() == [3, 17]
    assert "train-000003" in caplog.text
    with pytest.raises(ShardError, match=r"11 of \d+ pictures of miniworld train"):
        encode_set(encoder, broken(40, set(range(11))), PLAN, tmp_path / "b", **CPU)


def test_a_disk_without_room_is_refused(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(ConfigError, match=r"probe\.classification\.cache=false"):
        encode_set(encoder, pictures(), PLAN, tmp_path, **CPU)
    assert not [path for path in Path(tmp_path).rglob("*") if path.is_file()]


def test_a_file_that_was_lost_or_cut_is_made_again(encoder, tmp_path):
    given = pictures(20)
    first = encode_set(encoder, given, PLAN, tmp_path, **CPU).fetch(range(20))
    file = next(tmp_path.glob("*/attention@1.bin"))
    for damage in (file.unlink, lambda: os.truncate(file, 100)):
        damage()
        again = encode_set(encoder, given, PLAN, tmp_path, **CPU).fetch(range(20))
        assert all(torch.equal(again[name], first[name]) for name in PLAN.names)


def test_other_weights_or_plans_get_folders_of_their_own(encoder, tmp_path):
    given = pictures(10)
    for changed in (encoder, replace(encoder, fingerprint="other")):
        for plan in (PLAN, replace(PLAN, depths=(2,)), replace(PLAN, heads=("linear",))):
            encode_set(changed, given, plan, tmp_path, **CPU)
    assert len(list(tmp_path.iterdir())) == 6
