from pathlib import Path

import pytest

from internvl_lab.config.compose import CONFIG_DIR, compose
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
    ],
)
def test_wrong_overrides_are_one_clear_error(override, message):
    with pytest.raises(ConfigError, match=message):
        compose([override])


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CONFIG_DIR)))
def test_every_file_starts_with_its_purpose_and_a_command(path: Path):
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ")
    assert any(line.startswith("# Run it: python train.py") for line in lines[:4])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_a_small_delta(name):
    assert len((CONFIG_DIR / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()) <= 25


def test_a_folder_without_configs_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no train\.yaml"):
        compose([], tmp_path)
