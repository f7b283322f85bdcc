import json

import pytest
import torch
from safetensors.torch import load_file

import internvl_lab
from internvl_lab.api import export_asset, weights_folder
from internvl_lab.checkpoints import stage_provenance, write_stage
from internvl_lab.config import TilingConfig
from internvl_lab.errors import CheckpointError, ConfigError, MissingWeightsError
from internvl_lab.models import InternVL
from internvl_lab.prepare import build_template


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run folder with one finished stage of the mini family, random weights."""
    config = internvl_lab.compose()
    template = build_template(config)
    model = InternVL(config.model, template.context_id)
    root = tmp_path_factory.mktemp("run")
    record = stage_provenance("stage1", 3, {}, "abc")
    write_stage(root, "stage1", model, record, template=template, tiling=TilingConfig(112, 16, 1, 6))
    return root


def test_a_run_loads_with_its_processor(run_folder):
    model, processor = internvl_lab.load(run_folder)
    assert not model.training
    assert model.dtype == torch.float32
    assert processor.tiling.tile_size == 112
    assert processor.template.context_id == model.image_token_id


def test_compose_is_the_command_line():
    assert internvl_lab.compose(["seed=7"]).seed == 7
    with pytest.raises(ConfigError, match="sead"):
        internvl_lab.compose(["sead=7"])


def test_unknown_names_of_the_package_are_refused():
    with pytest.raises(AttributeError, match="nothing"):
        _ = internvl_lab.nothing


def test_a_run_without_a_finished_stage_says_so(tmp_path):
    (tmp_path / "stages").mkdir()
    with pytest.raises(CheckpointError, match="no finished stage"):
        weights_folder(tmp_path)
    with pytest.raises(MissingWeightsError):
        weights_folder(tmp_path / "nowhere")


def test_assets_hold_one_part_or_all_in_bf16(run_folder, tmp_path):
    vision = load_file(export_asset(run_folder, ("vision",), tmp_path / "vision"))
    assert {name.split(".")[1] for name in vision} == {"vision_tower"}
    assert {tensor.dtype for tensor in vision.values()} == {torch.bfloat16}
    export_asset(run_folder, ("vision", "projector", "language"), tmp_path / "all")
    model, _ = internvl_lab.load(tmp_path / "all")
    assert model.config.language.vocab_size == 640
    assert json.loads((tmp_path / "all" / "provenance.json").read_text())["stage"] == "stage1"
    with pytest.raises(CheckpointError, match="one part, or all"):
        export_asset(run_folder, ("vision", "language"), tmp_path / "two")
