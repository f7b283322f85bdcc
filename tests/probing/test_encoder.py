from dataclasses import replace

import pytest
import torch
import yaml

from internvl_lab.checkpoints import convert, resolve_source
from internvl_lab.config import ProbeConfig
from internvl_lab.config.compose import compose_raw, plain
from internvl_lab.errors import CheckpointError, ConfigError, MissingWeightsError
from internvl_lab.models.pixels import normalise
from internvl_lab.probing.encoder import EncoderSource, list_encoders, load_encoder

MINI = "asset:internvit_300m"


def same_weights(one, other):
    pairs = zip(one.tower.state_dict().values(), other.tower.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", ["internvit_300m", "internvit_6b", "quickstart"])
def test_every_shipped_encoder_loads_frozen(name):
    (source,) = list_encoders(ProbeConfig(encoder=f"asset:{name}"))
    encoder = load_encoder(source)
    assert encoder.label == name
    assert not encoder.tower.training
    assert not any(p.requires_grad for p in encoder.tower.parameters())
    pixels = torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8)
    with torch.no_grad():
        states = list(encoder.hidden_states(pixels))
        expected = encoder.tower(pixel_values=normalise(pixels, torch.float32)).last_hidden_state
    assert len(states) == encoder.num_layers + 1
    torch.testing.assert_close(states[-1], expected, rtol=0, atol=0)


def test_both_formats_give_the_same_encoder(tmp_path):
    mini = resolve_source("asset:quickstart")
    official = convert([mini], tmp_path / "official", "official")
    assert same_weights(load_encoder(EncoderSource("a", mini)), load_encoder(EncoderSource("b", official)))


def test_a_stage_s_checkpoint_is_an_encoder(tmp_path):
    encoder = load_encoder(*list_encoders(ProbeConfig(encoder=MINI)))
    place = tmp_path / "run" / "stages" / "stage1" / "checkpoints" / "step_00000001.ckpt"
    place.parent.mkdir(parents=True)
    settings = plain(compose_raw([]))
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(settings))
    weights = {f"model.vision_tower.{name}": tensor for name, tensor in encoder.tower.state_dict().items()}
    torch.save({"state_dict": weights}, place)
    (source,) = list_encoders(ProbeConfig(encoder=str(place)))
    assert same_weights(load_encoder(source), encoder)


def test_a_run_gives_the_encoders_of_its_stages_in_order(tmp_path):
    sources = list_encoders(ProbeConfig(run=fake_run(tmp_path)))
    assert [(source.name, source.run) for source in sources] == [("stage1", ""), ("stage1_5", "")]
    with pytest.raises(CheckpointError, match="no finished stage"):
        list_encoders(ProbeConfig(run=str(tmp_path / "stages")))


def fake_run(root, stages=("stage1", "stage1_5")):
    for name in stages:
        (root / "stages" / name).mkdir(parents=True)
        (root / "stages" / name / "weights").symlink_to(resolve_source(MINI))
        (root / "stages" / name / "done.json").write_text("{}")
    return str(root)


def test_runs_that_differ_in_their_seed_give_each_stage_under_one_label(tmp_path):
    runs = tuple(fake_run(tmp_path / name) for name in ("a", "b"))
    sources = list_encoders(ProbeConfig(runs=runs))
    assert [(s.label, s.run) for s in sources] == [
        ("stage1", "a"),
        ("stage1_5", "a"),
        ("stage1", "b"),
        ("stage1_5", "b"),
    ]
    assert sources[3].name == "stage1_5 of b"
    with pytest.raises(ConfigError, match="twice"):
        list_encoders(ProbeConfig(runs=(*runs, runs[0])))
    with pytest.raises(ConfigError, match=r"c finished \['stage1'\], but a \['stage1', 'stage1_5'\]"):
        list_encoders(ProbeConfig(runs=(*runs, fake_run(tmp_path / "c", ["stage1"]))))


def test_labels_are_given_or_derived():
    sources = list_encoders(ProbeConfig(encoders=(f"before@{MINI}", "asset:quickstart")))
    assert [source.label for source in sources] == ["before", "quickstart"]
    with pytest.raises(ConfigError, match="LABEL@SOURCE"):
        list_encoders(ProbeConfig(encoders=(MINI, MINI)))


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (ProbeConfig(), ConfigError, "nothing to probe"),
        (ProbeConfig(run="x", encoders=("y",)), ConfigError, "one of"),
        (ProbeConfig(run="x", runs=("y",)), ConfigError, "one of"),
        (ProbeConfig(encoder="asset:nothing"), MissingWeightsError, "asset:nothing"),
        (ProbeConfig(encoder="asset:tokenizer"), MissingWeightsError, "asset:tokenizer"),
        (ProbeConfig(encoder="nowhere"), MissingWeightsError, "nowhere"),
    ],
)
def test_what_is_missing_is_one_clear_error(config, error, message):
    with pytest.raises(error, match=message):
        list_encoders(config)


def test_a_language_model_is_no_encoder():
    with pytest.raises(CheckpointError, match="how its encoder is built"):
        load_encoder(EncoderSource("x", resolve_source("asset:qwen2_5_0_5b")))


def test_depths_are_absolute_and_checked(encoder):
    assert encoder.resolve_depths(()) == (0, 1, 2, 3)
    assert encoder.resolve_depths((-1, 1, 3)) == (1, 3)
    for depths in ((4,), (-5,)):
        with pytest.raises(ConfigError, match=r"depths 0\.\.3"):
            encoder.resolve_depths(depths)


def test_positions_are_interpolated_for_other_sizes(encoder):
    with torch.no_grad():
        states = list(encoder.hidden_states(torch.zeros(1, 3, 56, 56, dtype=torch.uint8)))
    assert states[-1].shape == (1, 17, 24)


def test_the_recorded_hash_is_the_fingerprint():
    (source,) = list_encoders(ProbeConfig(encoder=MINI))
    assert len(source.fingerprint) == 64
    assert replace(source, label="other").fingerprint == source.fingerprint
