from pathlib import Path

import pytest

from internvl_lab.config import CurationConfig
from internvl_lab.config.compose import CONFIG_DIR, compose, compose_curation, compose_raw, explain
from internvl_lab.errors import ConfigError

EXPERIMENTS = sorted(path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml"))
FILES = sorted(CONFIG_DIR.rglob("*.yaml"))


def test_no_argument_is_the_quickstart():
    config = compose()
    assert (config.experiment, config.scale.name) == ("quickstart", "mini")
    assert list(config.stages) == ["stage1", "stage1_5", "stage2"]
    assert config.tiling.num_visual_tokens == config.model.num_visual_tokens == 16


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("scale", ["mini", "full"])
def test_every_experiment_composes_at_both_scales(name, scale):
    config = compose([f"experiment={name}", f"scale={scale}"])
    assert config.scale.name == scale
    assert config.model.vision.image_size == config.tiling.tile_size == (112 if scale == "mini" else 448)


def test_scale_picks_the_parts_an_experiment_names():
    full, mini = compose(["experiment=scaling_6b_vit"]), compose(["experiment=scaling_6b_vit", "scale=mini"])
    assert (full.model.vision.hidden_size, full.model.vision.num_hidden_layers) == (3200, 45)
    assert mini.model.vision.use_qk_norm
    assert mini.model.vision.hidden_size < 448
    assert mini.sweep.axes == {"model/vision": ("mini/internvit_300m", "mini/internvit_6b")}


def test_init_from_one_folder_serves_all_parts():
    init = compose(["init_from=some/run"]).init_from
    assert (init.vision, init.projector, init.language) == ("some/run",) * 3
    init = compose(["init_from.vision=x"]).init_from
    assert (init.vision, init.language) == ("x", "asset:qwen2_5_0_5b")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("foo=1", "foo"),
        ("experiment=nope", "experiment/nope"),
        ("tiling.max_tilez=1", "max_tilez"),
        ("scheduler.name=step", r"scheduler\.name"),
        ("+data.jpeg.colour=1", r"data\.jpeg\.colour"),
        ("seed=abc", "seed='abc' must be int"),
        ("data.loss_averaging=cube", "loss_averaging"),
        ("model.vision.patch_size=0", r"model\.vision\.patch_size=0 must be at least 1"),
        ("model.vision.patch_size=abc", r"model\.vision\.patch_size='abc' must be int"),
        ("model.projector.downsample_ratio=0.3", r"model\.projector\.downsample_ratio=0\.3"),
        ("tiling.tile_size=56", r"tiling\.tile_size=56 must equal model\.vision\.image_size=112"),
        ("seed=-1", r"seed=-1 must lie in 0\.\.4294967295"),
        ("recipe.stages.stage1.learning_rate=0", r"stage stage1: stage\.learning_rate=0"),
        ("trainer.precision=fp16", r"trainer\.precision='fp16'"),
        ("+callbacks.ema=true", r"callbacks\.ema"),
        ("+logger.wandb.colour=red", r"logger\.wandb\.colour"),
        ("++model=null", "model"),
    ],
)
def test_wrong_overrides_are_one_clear_error(override, message):
    with pytest.raises(ConfigError, match=message):
        compose([override])


def test_any_argument_of_lightning_s_trainer_may_be_added():
    assert compose(["+trainer.fast_dev_run=true"]).trainer["fast_dev_run"] is True


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CONFIG_DIR)))
def test_every_file_starts_with_its_purpose_and_a_command(path: Path):
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ")
    commands = ("# Run it: python train.py", "# Run it: python -m internvl_lab ")
    assert any(line.startswith(commands) for line in lines[:4])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_a_small_delta(name):
    assert len((CONFIG_DIR / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()) <= 25


def test_a_folder_without_configs_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no train\.yaml"):
        compose([], tmp_path)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("tiling.max_tilez=1", "unknown key 'tiling.max_tilez'; known here: tile_size, num_visual_tokens, min_tiles"),
        ("foo=1", "unknown key 'foo'; known here: experiment, seed"),
        ("trainer.fast_dev_run=true", "unknown key 'trainer.fast_dev_run'; to add it: +trainer.fast_dev_run=..."),
        ("seed.x=1", "unknown key 'seed.x'"),
        (
            "experiment=nope",
            "unknown choice 'experiment/nope'; choices in experiment: data_filtering, dynamic_resolution",
        ),
        (
            "model/vision=nope",
            "unknown choice 'model/vision/nope'; choices in model/vision: full/internvit_300m",
        ),
        ("model/vision=xl/vit", "unknown choice 'model/vision/xl/vit'; choices in model/vision: full/internvit_300m"),
        ("stage=1", "unknown choice 'stage/1'; choices in stage: finetune_full"),
        ("seed=[", "cannot read 'seed=[': no viable alternative"),
        ("seed", "cannot read 'seed': missing EQUAL"),
        ("seed=1,2", "Ambiguous value for argument 'seed=1,2'; 1. To use it as a list"),
        ("~foo", "Could not delete from config. 'foo' does not exist."),
        ("tiling.max_tiles=${a.b}", "tiling.max_tiles: Interpolation key 'a.b' not found"),
        ("data.num_workers=???", "data.num_workers: Missing mandatory value"),
    ],
)
def test_a_refused_override_is_one_line_that_names_it(override, expected):
    with pytest.raises(ConfigError) as caught:
        compose([override])
    line = str(caught.value)
    assert line.startswith(expected)
    assert len(line.splitlines()) == 1
    assert "http" not in line


def test_own_errors_become_one_line():
    assert explain(ConfigError("a\nb"), ()) == "a b"


def test_faults_of_the_program_are_left_alone():
    assert explain(ValueError("x"), ("seed=1",)) is None
    assert explain(KeyError("x"), ()) is None


def test_the_cause_stays_attached():
    with pytest.raises(ConfigError) as caught:
        compose_raw(["foo=1"])
    assert "Could not override" in str(caught.value.__cause__)


def test_curation_s_file_holds_the_defaults():
    assert compose_curation() == CurationConfig()


def test_curation_takes_overrides():
    config = compose_curation(
        ["curation=default", "curation.rules.repeated_ngrams.threshold=0.3", "+curation.languages.mine=[latin]"]
    )
    assert config.rules.repeated_ngrams.threshold == 0.3
    assert config.languages == {"mine": ("latin",)}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("curation.rules.nope.threshold=1", "unknown key 'curation.rules.nope'; known here: malformed_record"),
        ("curation.rules.boxes.limit=1", "unknown key 'curation.rules.boxes.limit'; known here: threshold"),
        ("curation=nope", "unknown choice 'curation/nope'; choices in curation: default"),
        ("curation.rules.boxes.threshold=a", "curation.rules.boxes.threshold='a' must be float"),
        ("seed=1", "unknown key 'seed'; known here: curation"),
    ],
)
def test_wrong_overrides_of_curation_are_one_clear_error(override, expected):
    with pytest.raises(ConfigError) as caught:
        compose_curation([override])
    assert str(caught.value).startswith(expected)
