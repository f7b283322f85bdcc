import pytest

from internvl_lab.config import ClassificationConfig, ProbeConfig, ProbeDataConfig, ProbeSetConfig, SegmentationConfig
from internvl_lab.config.compose import compose
from internvl_lab.errors import ConfigError


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ProbeConfig(task="detection"), r"probe\.task='detection'"),
        (lambda: ProbeConfig(num_seeds=0), r"probe\.num_seeds=0"),
        (ProbeDataConfig, "either miniworld or train"),
        (lambda: ProbeDataConfig(train=ProbeSetConfig("x")), r"probe\.data\.tests is empty"),
        (lambda: ClassificationConfig(heads=("mlp",)), r"heads=\['mlp'\]"),
        (lambda: ClassificationConfig(learning_rates=()), "learning_rates"),
        (lambda: ClassificationConfig(learning_rates=(0.1, 0.0)), "learning_rates"),
        (lambda: ClassificationConfig(learning_rates=(0.1, 0.2), selection_share=0), "selection_share=0"),
        (lambda: ClassificationConfig(epochs=1, warmup_epochs=2), "warmup_epochs=2"),
        (lambda: ClassificationConfig(batch_size=1), "batch_size=1"),
        (lambda: SegmentationConfig(heads=()), "heads"),
        (lambda: SegmentationConfig(stride=600), "stride=600"),
        (lambda: SegmentationConfig(pyramid_depths=(1, 2)), "pyramid_depths"),
    ],
)
def test_impossible_settings_name_their_key(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_report_s_protocol_is_the_default_at_full_scale():
    config = compose(["experiment=probe_classification", "scale=full"])
    assert config.probe is not None
    assert config.probe.classification == ClassificationConfig()
    assert config.probe.encoder == "weights/InternViT-300M-448px-V2_5"
    assert list(config.probe.data.tests) == ["IN-1K", "IN-ReaL", "IN-V2", "IN-A", "IN-R", "IN-Sketch"]
    assert [t.restrict for t in config.probe.data.tests.values()] == [False, False, False, True, True, False]


@pytest.mark.parametrize(
    ("choice", "tests"),
    [
        ("miniworld", []),
        ("miniworld_masks", []),
        ("pictures", ["val"]),
        ("imagenet", ["IN-1K", "IN-ReaL", "IN-V2", "IN-A", "IN-R", "IN-Sketch"]),
        ("ade20k", ["ADE20K"]),
        ("coco_stuff", ["COCO-Stuff-164K"]),
    ],
)
def test_every_data_set_is_one_word(choice, tests):
    for experiment in ("probe_classification", "probe_segmentation"):
        probe = compose([f"experiment={experiment}", f"probe/data={choice}"]).probe
        assert probe is not None
        assert list(probe.data.tests) == tests
        assert (probe.data.miniworld is None) == bool(tests)
        assert probe.data.layout == ("coco_stuff" if choice == "coco_stuff" else "ade20k")


def test_segmentation_at_full_scale_is_the_report_s():
    probe = compose(["experiment=probe_segmentation", "scale=full"]).probe
    assert probe is not None
    assert probe.segmentation == SegmentationConfig()


def test_other_experiments_have_no_probe():
    assert compose([]).probe is None


def test_encoders_and_runs_come_from_the_command_line():
    probe = compose(["experiment=probe_classification", "probe.encoders=[before@asset:x,after@outputs/latest]"]).probe
    assert probe is not None
    assert probe.encoders == ("before@asset:x", "after@outputs/latest")
    with pytest.raises(ConfigError, match=r"probe\.colour"):
        compose(["experiment=probe_classification", "probe.colour=red"])
