import json

import pytest
import torch
from safetensors.torch import load_file

import internvl_lab
from internvl_lab.api import export_asset, weights_folder
from internvl_lab.checkpoints import export_adapter, stage_provenance, write_stage
from internvl_lab.config import LoraConfig, TilingConfig
from internvl_lab.constants import LORA_KEY, PARTS, STATE_KEY
from internvl_lab.errors import CheckpointError, ConfigError, MissingWeightsError
from internvl_lab.models import InternVL, add_adapters
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


@pytest.fixture
def lora_run(tmp_path):
    """A run folder with a LoRA stage on the shipped model, adapters at random."""
    model, processor = internvl_lab.load("asset:quickstart")
    lora = LoraConfig(("language",), 2)
    add_adapters(model, lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    init = {part: {"source": "asset:quickstart", "sha256": "x"} for part in PARTS}
    record = stage_provenance("finetune_lora", 3, init, "abc")
    write_stage(tmp_path, "finetune_lora", model, record, template=processor.template, tiling=processor.tiling)
    path = tmp_path / "stages" / "finetune_lora" / "checkpoints" / "step_00000003.ckpt"
    path.parent.mkdir()
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, STATE_KEY: {LORA_KEY: vars(lora)}}, path)
    export_adapter(path, tmp_path / "stages" / "finetune_lora" / "adapter")
    return tmp_path


def test_an_adapter_asset_is_the_run_s_model_again(lora_run, tmp_path):
    out = tmp_path / "asset"
    assert export_asset(lora_run, ("adapter",), out) == out / "adapter_model.safetensors"
    provenance = json.loads((out / "provenance.json").read_text())
    assert (provenance["stage"], provenance["parts"]) == ("finetune_lora", ["adapter"])
    expected, found = internvl_lab.load(lora_run)[0].state_dict(), internvl_lab.load(out)[0].state_dict()
    # the adapter is rounded to bf16: 8 bits of its products of some 0.1
    assert all(torch.allclose(tensor, found[name], atol=2e-2) for name, tensor in expected.items())
    assert any(
        not torch.equal(tensor, found[name])
        for name, tensor in internvl_lab.load("asset:quickstart")[0].state_dict().items()
    )


def test_an_adapter_of_parts_from_several_sources_is_refused(lora_run, tmp_path):
    path = lora_run / "stages" / "finetune_lora" / "weights" / "provenance.json"
    content = json.loads(path.read_text())
    content["init"]["vision"]["source"] = "elsewhere"
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="belongs to one base, not to asset:quickstart, elsewhere"):
        export_asset(lora_run, ("adapter",), tmp_path / "asset")
