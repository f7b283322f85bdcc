"""Adapters in files: checkpoint of a LoRA stage -> merged export or adapter; adapter folder -> merged export."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from internvl_lab.checkpoints import convert, export_adapter, load_model, resolve_source, save_model
from internvl_lab.checkpoints.adapters import ADAPTER_CONFIG_FILE, ADAPTER_FILE, open_adapter
from internvl_lab.config import LoraConfig, ModelConfig
from internvl_lab.constants import LORA_KEY, STATE_KEY
from internvl_lab.errors import CheckpointError, MissingWeightsError
from internvl_lab.models import InternVL, add_adapters

MakeModel = Callable[..., InternVL]
IDS = torch.tensor([[1, 291, *[293] * 4, 292, 5, 6, 7, 8]])
TILES = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(1))
LORA = LoraConfig(parts=("vision", "language"), rank=4, alpha=6.0)


def logits_of(model: InternVL) -> torch.Tensor:
    """Return (1, T, vocabulary) logits of one sample."""
    num_tokens = IDS.shape[1]
    hidden = model(
        input_ids=IDS,
        position_ids=torch.arange(num_tokens)[None],
        cu_seqlens=torch.tensor([0, num_tokens], dtype=torch.int32),
        max_seqlen=num_tokens,
        pixel_values=TILES,
    )
    return model.lm_head(hidden)


@pytest.fixture
def live(config: ModelConfig, make_model: MakeModel) -> InternVL:
    """Give a model with adapters that count."""
    model = make_model(config)
    add_adapters(model, LORA)
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture
def base(config: ModelConfig, make_model: MakeModel, tmp_path: Path) -> Path:
    """Give the weights that the adapters were trained on."""
    return save_model(make_model(config), tmp_path / "base", {})


@pytest.fixture
def checkpoint(live: InternVL, base: Path, tmp_path: Path) -> Path:
    """Give what a LoRA stage saves while it trains, with its run's settings beside it."""
    import dataclasses

    import yaml

    path = tmp_path / "run" / "stages" / "finetune_lora" / "checkpoints" / "step_00000002.ckpt"
    path.parent.mkdir(parents=True)
    state = {f"model.{name}": tensor for name, tensor in live.state_dict().items()}
    torch.save({"state_dict": state, STATE_KEY: {"stage": "finetune_lora", LORA_KEY: vars(LORA)}}, path)
    content = {"model": json.loads(json.dumps(dataclasses.asdict(live.config))), "tiling": {}, "data": {}}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(content))
    return path


def assert_same(model: InternVL, live: InternVL) -> None:
    torch.testing.assert_close(logits_of(model.eval()), logits_of(live), rtol=1e-4, atol=1e-4)


def test_saving_a_live_model_merges(live: InternVL, tmp_path: Path) -> None:
    assert_same(load_model(save_model(live, tmp_path / "weights", {})), live)


@pytest.mark.parametrize("form", ["native", "official"])
def test_a_checkpoint_converts_to_the_live_model(live: InternVL, checkpoint: Path, tmp_path: Path, form: str) -> None:
    out = convert([checkpoint], tmp_path / form, form)
    assert_same(load_model(out), live)


def test_the_merged_export_equals_the_live_one_to_the_bit(live: InternVL, checkpoint: Path, tmp_path: Path) -> None:
    out = convert([checkpoint], tmp_path / "out", "native")
    kept = save_model(live, tmp_path / "live", {})
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (out, kept))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_peft_loads_the_adapter_onto_plain_transformers(
    live: InternVL, base: Path, checkpoint: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    folder = export_adapter(checkpoint, tmp_path / "adapter")
    theirs = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), str(folder)).eval()
    logits = theirs(input_ids=IDS, pixel_values=TILES, attention_mask=torch.ones_like(IDS)).logits
    torch.testing.assert_close(logits, logits_of(live), rtol=1e-4, atol=1e-4)
    assert json.loads((folder / ADAPTER_CONFIG_FILE).read_text())["lora_alpha"] == 6.0


@pytest.mark.parametrize("base_format", ["native", "official"])
def test_an_adapter_merges_into_its_base_in_either_format(
    live: InternVL, base: Path, checkpoint: Path, tmp_path: Path, base_format: str
) -> None:
    folder = export_adapter(checkpoint, tmp_path / "adapter")
    source = convert([base], tmp_path / "as", base_format)
    out = convert([source], tmp_path / "merged", "native", adapter=folder)
    assert_same(load_model(out), live)
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["adapter"] == str(folder)


def test_lora_on_merged_lora_starts_from_the_merged_model(live: InternVL, checkpoint: Path, tmp_path: Path) -> None:
    again = load_model(convert([checkpoint], tmp_path / "merged", "native"))
    add_adapters(again, LORA)
    assert_same(again, live)


def test_a_run_cannot_start_from_an_adapter_alone(checkpoint: Path, tmp_path: Path) -> None:
    folder = export_adapter(checkpoint, tmp_path / "adapter")
    with pytest.raises(MissingWeightsError, match="holds a LoRA adapter and no weights: merge it"):
        resolve_source(str(folder))


def broken(folder: Path, **fields: Any) -> None:
    """Change fields of an adapter's configuration."""
    file = folder / ADAPTER_CONFIG_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_what_cannot_be_merged_is_refused(base: Path, checkpoint: Path, tmp_path: Path) -> None:
    folder = export_adapter(checkpoint, tmp_path / "adapter")
    with pytest.raises(CheckpointError, match="holds no adapters"):
        export_adapter(base, tmp_path / "x")
    with pytest.raises(CheckpointError, match="is no adapter"):
        open_adapter(base)
    with pytest.raises(CheckpointError, match="holds adapters already"):
        convert([checkpoint], tmp_path / "x", "native", adapter=folder)
    with pytest.raises(CheckpointError, match="belong to weights that are not there"):
        convert([base], tmp_path / "x", "native", ("language",), adapter=_renamed(folder, tmp_path / "odd"))
    broken(folder, use_dora=True)
    with pytest.raises(CheckpointError, match="use_dora"):
        open_adapter(folder)
    broken(folder, peft_type="IA3")
    with pytest.raises(CheckpointError, match="type IA3"):
        open_adapter(folder)


def _renamed(folder: Path, out: Path) -> Path:
    """Copy an adapter whose weights belong to another model."""
    out.mkdir()
    (out / ADAPTER_CONFIG_FILE).write_bytes((folder / ADAPTER_CONFIG_FILE).read_bytes())
    tensors = load_file(folder / ADAPTER_FILE)
    save_file({key.replace("layers.1", "layers.9"): value for key, value in tensors.items()}, out / ADAPTER_FILE)
    return out


def test_half_an_adapter_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = export_adapter(checkpoint, tmp_path / "adapter")
    tensors = load_file(folder / ADAPTER_FILE)
    lost = next(key for key in tensors if "lora_B" in key)
    save_file({key: value for key, value in tensors.items() if key != lost}, folder / ADAPTER_FILE)
    with pytest.raises(CheckpointError, match="1 weights lack the A or B"):
        open_adapter(folder)


def test_adapters_without_a_scaling_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    del content[STATE_KEY]
    torch.save(content, checkpoint)
    with pytest.raises(CheckpointError, match="nothing says how they count"):
        convert([checkpoint], tmp_path / "x", "native")
