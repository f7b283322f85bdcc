"""Native checkpoints: bit-equal round trips, and plain transformers gives the same logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, InternVLConfig, InternVLForConditionalGeneration

from internvl_lab.checkpoints import load_model, load_part, load_processor, read_config, save_model, save_part
from internvl_lab.config import ModelConfig, TilingConfig
from internvl_lab.constants import PARTS
from internvl_lab.errors import CheckpointError
from internvl_lab.models import InternVL
from internvl_lab.text import ChatTemplate, train_tokenizer

MakeModel = Callable[..., InternVL]
Same = Callable[[InternVL, InternVL], dict[str, bool]]
ALL = dict.fromkeys(PARTS, True)
IDS = torch.tensor([[1, 291, *[293] * 8, 292, 5, 6, 7, 8]])
TILES = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))


def logits_of(model: InternVL) -> torch.Tensor:
    num_tokens = IDS.shape[1]
    hidden = model(
        input_ids=IDS,
        position_ids=torch.arange(num_tokens)[None],
        cu_seqlens=torch.tensor([0, num_tokens], dtype=torch.int32),
        max_seqlen=num_tokens,
        pixel_values=TILES,
    )
    return model.lm_head(hidden)


def test_a_saved_model_comes_back_bit_equal(
    config: ModelConfig, make_model: MakeModel, same: Same, tmp_path: Path
) -> None:
    model = make_model(config)
    folder = save_model(model, tmp_path / "a" / "weights", {"stage": "x"})
    loaded = load_model(folder, attention="dense")
    assert same(model, loaded) == ALL
    assert loaded.config == replace(config, attention="dense")
    assert loaded.image_token_id == 293


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_plain_transformers_loads_it_with_equal_logits(
    config: ModelConfig, make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model(config)
    folder = save_model(model, tmp_path / "weights", {})
    theirs, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert isinstance(theirs, InternVLForConditionalGeneration)
    assert not any(report.values()), report
    assert theirs.lm_head.weight is not theirs.model.language_model.embed_tokens.weight
    with torch.inference_mode():
        expected = theirs.eval()(input_ids=IDS, pixel_values=TILES, use_cache=False).logits
        torch.testing.assert_close(logits_of(model), expected, rtol=1e-5, atol=5e-6)


def test_keys_are_exactly_those_of_transformers(config: ModelConfig, make_model: MakeModel, tmp_path: Path) -> None:
    folder = save_model(make_model(config), tmp_path / "weights", {})
    content = json.loads((folder / "config.json").read_text())
    with torch.device("meta"):
        theirs = InternVLForConditionalGeneration(InternVLConfig.from_dict(content))
    expected = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    assert {name: tensor.shape for name, tensor in load_file(folder / "model.safetensors").items()} == expected


def test_what_transformers_saves_loads_here(
    config: ModelConfig, make_model: MakeModel, same: Same, tmp_path: Path
) -> None:
    model = make_model(config)
    folder = save_model(model, tmp_path / "ours", {})
    theirs = AutoModelForImageTextToText.from_pretrained(folder)
    del theirs.config.internvl_lab
    theirs.save_pretrained(tmp_path / "theirs")
    assert same(model, load_model(tmp_path / "theirs")) == ALL


def test_bf16_halves_the_file_and_says_so(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    small = save_model(model, tmp_path / "bf16", {"stage": "x"}, dtype="bfloat16")
    assert {tensor.dtype for tensor in load_file(small / "model.safetensors").values()} == {torch.bfloat16}
    provenance = json.loads((small / "provenance.json").read_text())
    assert (provenance["dtype"], provenance["stage"], provenance["parts"]) == ("bfloat16", "x", list(PARTS))
    assert load_model(small).dtype == torch.bfloat16
    full = load_model(small, dtype="float32")
    assert torch.equal(full.lm_head.weight, model.lm_head.weight.bfloat16().float())
    with pytest.raises(CheckpointError, match="dtype 'int8'"):
        save_model(model, tmp_path / "int8", {}, dtype="int8")
    assert not (tmp_path / "int8").exists()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_alone_loads_into_its_place_only(
    part: str, config: ModelConfig, make_model: MakeModel, same: Same, tmp_path: Path
) -> None:
    source, target = make_model(config, seed=1), make_model(config, seed=2)
    folder = save_part(source, part, tmp_path / part, {})
    load_part(target, part, folder)
    assert same(source, target) == {name: name == part for name in PARTS}
    other = PARTS[PARTS.index(part) - 1]
    with pytest.raises(CheckpointError, match=rf"{other} from .* missing: "):
        load_part(target, other, folder)


def test_a_part_loads_from_a_whole_checkpoint_of_another_family(
    make_model: MakeModel, same: Same, tmp_path: Path
) -> None:
    source = make_model()
    wider = replace(source.config, language=replace(source.config.language, num_hidden_layers=1, vocab_size=310))
    target = make_model(wider, seed=2)
    folder = save_model(source, tmp_path / "whole", {})
    load_part(target, "vision", folder)
    assert torch.equal(target.vision_tower.embeddings.cls_token, source.vision_tower.embeddings.cls_token)
    with pytest.raises(CheckpointError, match="num_hidden_layers=2 instead of 1, vocab_size=300 instead of 310"):
        load_part(target, "language", folder)


def test_an_unknown_part_cannot_be_saved(make_model: MakeModel, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="part 'head'"):
        save_part(make_model(), "head", tmp_path / "head", {})


def test_weights_without_settings_load_by_shape(make_model: MakeModel, same: Same, tmp_path: Path) -> None:
    source, target = make_model(seed=1), make_model(seed=2)
    folder = save_part(source, "vision", tmp_path / "vision", {})
    (folder / "config.json").unlink()
    load_part(target, "vision", folder)
    assert same(source, target)["vision"]
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_config(folder)


def test_the_processor_travels_with_the_weights(make_model: MakeModel, tmp_path: Path) -> None:
    template = ChatTemplate(train_tokenizer(["one circle, two squares"] * 9, 300), system_message="Be brief.")
    tiling = TilingConfig(tile_size=56, num_visual_tokens=4, max_tiles=6)
    folder = save_model(make_model(), tmp_path / "weights", {}, template=template, tiling=tiling)
    loaded, loaded_tiling = load_processor(folder)
    assert (loaded.fingerprint, loaded_tiling) == (template.fingerprint, tiling)


def test_a_folder_that_transformers_saved_tied_is_read(tmp_path: Path) -> None:
    """Tied is the default of transformers' InternVLConfig; then no lm_head.weight is stored."""
    text = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 48}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "model_type": "qwen2"}
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    vision |= {"image_size": [56, 56], "patch_size": [14, 14]}
    torch.manual_seed(0)
    config = InternVLConfig(vision_config=vision, text_config=text, image_token_id=293, image_seq_length=4)
    theirs = InternVLForConditionalGeneration(config).eval()
    theirs.save_pretrained(tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    model = load_model(tmp_path / "tied").eval()
    with torch.inference_mode():
        expected = theirs(input_ids=IDS, pixel_values=TILES).logits
        torch.testing.assert_close(logits_of(model), expected, atol=5e-6, rtol=0)
