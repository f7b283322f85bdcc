from safetensors.torch import load_file

from internvl_lab.cli import main


def test_a_part_of_a_run_becomes_an_asset(tmp_path):
    source = "asset:qwen2_5_0_5b"
    assert main(["assets", "--run", source, "--parts", "vision", "--out", str(tmp_path)]) == 2  # no whole checkpoint


def test_shipped_assets_are_small_and_tell_where_they_come_from():
    from importlib.resources import files
    from pathlib import Path

    folder = Path(str(files("internvl_lab"))) / "assets"
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert total <= 12_000_000
    for weights in folder.glob("*/model.safetensors"):
        assert (weights.parent / "provenance.json").is_file(), weights
        assert {str(tensor.dtype) for tensor in load_file(weights).values()} == {"torch.bfloat16"}, weights
