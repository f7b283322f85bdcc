"""Segmentation heads on a tiny encoder: what trains, what stays, and that mIoU is what it says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from internvl_lab.config import SegmentationConfig
from internvl_lab.errors import ConfigError, SampleError, ShardError
from internvl_lab.models.vision import VisionLayer
from internvl_lab.probing.masks import IGNORED, MaskSet
from internvl_lab.probing.segment import SegmentationModule, Segmenter, heads_of, poly_factor, score_masks

CONFIG = SegmentationConfig(
    channels=8,
    crop_size=28,
    stride=14,
    batch_size=4,
    max_steps=3,
    warmup_steps=1,
    learning_rate=0.01,
    augment=False,
    grid_pictures=2,
    drop_path_rate=0.3,
)


def halves(number=8, size=(28, 28), broken=()):
    """Pictures whose bright half is class 1."""

    def read(index):
        if index in broken:
            raise SampleError(str(index), "corrupt_image")
        mask = np.zeros((size[1], size[0]), np.uint8)
        mask[:, : size[0] // 2] = 1
        mask = mask if index % 2 else mask[:, ::-1].copy()
        return Image.fromarray(np.repeat(mask[..., None] * 200, 3, 2)), mask

    return MaskSet("halves", tuple(map(str, range(number))), 2, read)


@pytest.fixture
def make(encoder, build_trainer):
    def make(config=CONFIG, train=None, tests=None):
        given = train or halves(), tests or {"test": halves(4)}
        return Segmenter(encoder, *given, config, build_trainer, torch.device("cpu"))

    return make


@pytest.mark.parametrize("head", ["linear", "upernet", "full"])
def test_every_head_trains_and_leaves_the_given_encoder_bit_equal(make, encoder, head):
    before = {name: tensor.clone() for name, tensor in encoder.tower.state_dict().items()}
    scores, examples = make().run(head, 0)
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.tower.state_dict().items())
    assert [(s.head, s.target, s.test, s.n) for s in scores] == [(head, "mIoU", "test", 4)]
    assert 0 <= scores[0].accuracy <= 1
    assert len(examples) == 2
    assert make().run(head, 0)[0] == scores


def test_only_full_tuning_trains_the_encoder_and_drops_paths(encoder):
    frozen = SegmentationModule(encoder, "upernet", 2, CONFIG, 10)
    assert not any("layer" in name for name, _ in frozen.named_parameters() if "segmenter" not in name)
    full = SegmentationModule(encoder, "full", 2, CONFIG, 10)
    assert all(p.requires_grad for p in full.tower.parameters())
    rates = [m.drop_path_rate for m in full.tower.modules() if isinstance(m, VisionLayer)]
    assert rates == pytest.approx([0, 0.15, 0.3])
    assert {m.drop_path_rate for m in encoder.tower.modules() if isinstance(m, VisionLayer)} == {0.0}
    assert full.tower.training
    optimizer = full.configure_optimizers()["optimizer"]
    assert len({group["lr"] for group in optimizer.param_groups}) == 1 + 3 + 1
    decays = {
        g["weight_decay"]
        for g in SegmentationModule(encoder, "linear", 2, CONFIG, 9).configure_optimizers()["optimizer"].param_groups
    }
    assert decays == {0.0}


def test_a_linear_head_learns_what_is_linear(make):
    scores, _ = make(replace(CONFIG, max_steps=60, learning_rate=0.05)).run("linear", 0)
    assert scores[0].accuracy > 0.9


def test_miou_equals_the_definition_and_ignores_255(encoder):
    module = SegmentationModule(encoder, "linear", 3, CONFIG, 10).eval()
    given = halves(3, size=(40, 33), broken={1})

    def read(index):
        image, mask = given.read(index)
        mask[:5] = IGNORED
        return image, mask

    value, n, examples = score_masks(module, replace(given, read=read, num_classes=3), CONFIG, 14)
    assert n == 2
    unions = []
    for label in range(3):
        pairs = [(truth[truth != IGNORED] == label, found[truth != IGNORED] == label) for _, truth, found in examples]
        union = sum((a | b).sum() for a, b in pairs)
        if union:
            unions.append(sum((a & b).sum() for a, b in pairs) / union)
    assert value == pytest.approx(np.mean(unions), abs=1e-6)
    assert examples[0][2].shape == (33, 40)


def test_odd_crops_other_classes_and_single_pictures_are_refused(make):
    with pytest.raises(ConfigError, match=r"crop_size=30.*14 pixels"):
        make(replace(CONFIG, crop_size=30))
    with pytest.raises(ConfigError, match="has 3 classes, training 2"):
        make(tests={"test": replace(halves(), num_classes=3)})
    with pytest.raises(ConfigError, match="two training pictures"):
        make(train=halves(1))
    with pytest.raises(ConfigError, match=r"depths 0\.\.3"):
        make(replace(CONFIG, pyramid_depths=(1, 2, 3, 4))).run("upernet", 0)


def test_unreadable_pictures_are_left_out_and_too_many_refused(make):
    scores, _ = make(train=halves(8, broken={1, 2, 3}), tests={"test": halves(4, broken={0})}).run("upernet", 0)
    assert scores[0].n == 3
    with pytest.raises(ShardError, match=r"12 of 12 pictures of halves"):
        make(train=halves(8, broken=set(range(8)))).run("linear", 0)
    with pytest.raises(ShardError, match=r"4 of 4 pictures of halves"):
        make(tests={"test": halves(4, broken=set(range(4)))}).run("linear", 0)


def test_depths_may_count_from_the_top(encoder):
    module = SegmentationModule(encoder, "upernet", 2, replace(CONFIG, pyramid_depths=(1, 2, -2, -1)), 10)
    assert module.depths == (1, 2, 2, 3)
    logits, _ = module(torch.zeros(2, 3, 28, 28, dtype=torch.uint8))
    assert logits.shape == (2, 2, 28, 28)


def test_no_layer_above_the_highest_map_is_computed(encoder, monkeypatch):
    seen = []
    monkeypatch.setattr(encoder.tower.encoder.layer[2], "forward", seen.append)
    module = SegmentationModule(encoder, "linear", 2, replace(CONFIG, linear_depth=2), 10)
    module(torch.zeros(2, 3, 28, 28, dtype=torch.uint8))
    assert not seen


def test_a_batch_without_any_label_is_no_nan(make):
    train = replace(halves(), read=lambda i: (Image.new("RGB", (28, 28)), np.full((28, 28), IGNORED, np.uint8)))
    scores, _ = make(train=train).run("linear", 0)
    assert np.isfinite(scores[0].accuracy)


def test_the_rate_warms_up_and_falls_linearly():
    assert poly_factor(0, 100, 10) == pytest.approx(1e-6)
    assert poly_factor(5, 100, 10) == pytest.approx(0.5 * 0.95, abs=1e-6)
    assert poly_factor(50, 100, 10) == 0.5
    assert poly_factor(100, 100, 10) == 0


def test_the_linear_head_comes_first():
    assert heads_of(replace(CONFIG, heads=("full", "linear"))) == ["linear", "full"]
