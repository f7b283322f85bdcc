import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from internvl_lab.cli import build_parser, main

GOLDEN = Path(__file__).resolve().parents[1] / "assets" / "golden"


def run(*arguments: object) -> int:
    return main(["convert", *map(str, arguments)])


def test_there_and_back_on_the_command_line(tmp_path):
    source = GOLDEN / "6b_internlm2"
    native, official = tmp_path / "native", tmp_path / "official"
    assert run("--in", source, "--out", native, "--format", "native") == 0
    assert run("--in", native, "--out", official, "--format", "official", "--max-shard-gb", 0.0005) == 0
    assert len(list(official.glob("model-*.safetensors"))) > 1
    expected = load_file(source / "model.safetensors")
    found = {k: v for file in official.glob("*.safetensors") for k, v in load_file(file).items()}
    assert found.keys() == expected.keys()
    assert all(found[name].equal(tensor) for name, tensor in expected.items())


def test_parts_assets_and_dtype(tmp_path):
    out = tmp_path / "vision"
    assert run("--in", "asset:internvit_300m", "--out", out, "--format", "official", "--dtype", "float32") == 0
    content = json.loads((out / "config.json").read_text())
    assert (content["model_type"], content["torch_dtype"]) == ("intern_vit_6b", "float32")
    projector = tmp_path / "projector"
    assert run("--in", "asset:quickstart", "--out", projector, "--format", "official", "--parts", "projector") == 0
    assert sorted(load_file(projector / "model.safetensors")) == [
        f"{n}.{p}" for n in (0, 1, 3) for p in ("bias", "weight")
    ]


def test_faults_are_one_sentence(tmp_path, capsys):
    tensors = load_file(GOLDEN / "300m_qwen2" / "model.safetensors")
    tensors.pop("mlp1.3.bias")
    (tmp_path / "in").mkdir()
    save_file(tensors, tmp_path / "in" / "model.safetensors")
    (tmp_path / "in" / "config.json").write_bytes((GOLDEN / "300m_qwen2" / "config.json").read_bytes())
    assert run("--in", tmp_path / "in", "--out", tmp_path / "out", "--format", "native") == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert "1 missing: model.multi_modal_projector.linear_2.bias" in shown
    assert not (tmp_path / "out").exists()
    assert run("--in", "asset:nothing", "--out", tmp_path / "out", "--format", "native") == 2


def test_the_command_explains_itself(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["convert", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for clue in ("--allow-pickle", "vision,projector,language", "nine tokens", "VLMEvalKit"):
        assert clue in shown
