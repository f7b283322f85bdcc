"""Conversions: parity with the authors' code, bit-equal round trips, one error for everything that does not fit."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, Qwen2Config, Qwen2ForCausalLM

from internvl_lab.checkpoints import convert, initialise, load_model, load_part, save_model, save_part
from internvl_lab.checkpoints import writer as writer_module
from internvl_lab.checkpoints.sources import open_source
from internvl_lab.config import InitConfig, ModelConfig, TilingConfig
from internvl_lab.constants import PARTS
from internvl_lab.errors import CheckpointError, MissingWeightsError
from internvl_lab.models import InternVL
from internvl_lab.text import ChatTemplate, train_tokenizer

MakeModel = Callable[..., InternVL]
Same = Callable[[InternVL, InternVL], dict[str, bool]]
TOLERANCE = 5e-6
KINDS = ("300m_qwen2", "6b_internlm2")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(tensor, other[name]) and tensor.dtype == other[name].dtype for name, tensor in one.items()
    )


def edit_config(folder: Path, change: Callable[[dict], object]) -> None:
    content = json.loads((folder / "config.json").read_text())
    change(content)
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize("kind", [*KINDS, "long_internlm2"])
def test_plain_transformers_computes_what_the_authors_code_computes(kind: str, golden: Path, tmp_path: Path) -> None:
    """Tolerance as in tests/models/test_parity.py; the tensors are those of the authors' code."""
    out = convert([golden / kind], tmp_path / "native", "native")
    model, report = AutoModelForImageTextToText.from_pretrained(out, dtype=torch.float32, output_loading_info=True)
    assert not any(report.values()), report
    model.eval()
    reference = load_file(golden / kind / "reference.safetensors")
    pixels = reference["pixel_values"]
    with torch.inference_mode():
        ours = {
            "vision_features": model.model.vision_tower(pixel_values=pixels).last_hidden_state,
            "projected": model.get_image_features(pixel_values=pixels).pooler_output,
            "logits": model(input_ids=reference["input_ids"], pixel_values=pixels, use_cache=False).logits,
        }
    for name, tensor in ours.items():
        assert tensor.shape == reference[name].shape
        assert (tensor - reference[name]).abs().max() <= TOLERANCE, name


def test_there_and_back_is_equal_to_the_bit(kind: str, golden: Path, tmp_path: Path) -> None:
    native = convert([golden / kind], tmp_path / "native", "native")
    official = convert([native], tmp_path / "official", "official", max_shard_bytes=200_000)
    again = convert([official], tmp_path / "again", "native")
    assert equal(tensors_of(official), load_file(golden / kind / "model.safetensors"))
    assert equal(tensors_of(again), tensors_of(native))
    assert json.loads((again / "config.json").read_text()) == json.loads((native / "config.json").read_text())


def test_official_settings_are_those_of_the_authors(kind: str, golden: Path, tmp_path: Path) -> None:
    native = convert([golden / kind], tmp_path / "native", "native")
    content = json.loads((convert([native], tmp_path / "out", "official") / "config.json").read_text())
    expected = json.loads((golden / kind / "config.json").read_text())
    for section in ("vision_config", "llm_config"):
        for key in expected[section].keys() - {"use_flash_attn", "rope_scaling"}:
            assert content[section][key] == expected[section][key], key
        content.pop(section)
    assert {key: content.get(key) for key in expected if key in content} == {
        key: value for key, value in expected.items() if key in content
    }
    assert expected.keys() - content.keys() == {"vision_config", "llm_config"}
    assert content["auto_map"]["AutoConfig"].endswith("configuration_internvl_chat.InternVLChatConfig")


def test_code_of_the_authors_travels_with_their_format(golden: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(golden / KINDS[0], tmp_path / "source"))
    for name in ("configuration_internvl_chat.py", "modeling_internvl_chat.py", "conversation.py"):
        (source / name).write_text("# code\n")
    out = convert([source], tmp_path / "out", "official")
    assert {file.name for file in out.glob("*.py")} == {file.name for file in source.glob("*.py")}
    content = json.loads((out / "config.json").read_text())
    assert content["auto_map"]["AutoModel"] == "modeling_internvl_chat.InternVLChatModel"


def test_memory_is_that_of_one_output_file(
    config: ModelConfig, make_model: MakeModel, same: Same, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(config)
    source = save_model(model, tmp_path / "source", {})
    written: list[int] = []

    def counting(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
        written.append(sum(tensor.untyped_storage().nbytes() for tensor in tensors.values()))
        save_file(tensors, file, metadata)

    monkeypatch.setattr(writer_module, "save_file", counting)
    limit = 50_000
    out = convert([source], tmp_path / "out", "official", max_shard_bytes=limit)
    assert len(written) > 3
    assert max(written) <= limit
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(written)
    assert index["weight_map"].keys() == tensors_of(out).keys()
    assert all(same(model, load_model(out)).values())


def test_every_fault_is_listed_and_nothing_written(golden: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(golden / KINDS[0], tmp_path / "source"))
    tensors = load_file(source / "model.safetensors")
    del tensors["mlp1.1.bias"]
    tensors["vision_model.head.weight"] = torch.zeros(2)
    tensors["optimizer.step"] = torch.zeros(1)
    tensors["language_model.model.norm.weight"] = torch.zeros(7)
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        convert([source], tmp_path / "out", "native")
    message = str(caught.value)
    assert "\n" not in message
    for clue in (
        "2 unexpected: ",
        "optimizer.step",
        "vision_model.head.weight",
        "1 missing: model.multi_modal_projector.linear_1.bias",
        "1 mis-shaped: model.language_model.norm.weight (7,) instead of (96,)",
    ):
        assert clue in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize("form", ["native", "official"])
@pytest.mark.parametrize("part", PARTS)
def test_a_part_alone_goes_out_and_comes_in(
    form: str, part: str, kind: str, golden: Path, same: Same, tmp_path: Path
) -> None:
    whole = load_model(golden / kind)
    out = convert([golden / kind], tmp_path / "part", form, [part])
    names = list(tensors_of(out))
    assert not any(name.startswith(("vision_model.", "mlp1.", "language_model.")) for name in names)
    target = InternVL(whole.config, whole.image_token_id)
    load_part(target, part, out)
    assert same(whole, target) == {name: name == part for name in PARTS}
    back = convert([out], tmp_path / "back", "native")
    assert equal(tensors_of(back), {k: t for k, t in tensors_of_native(golden / kind).items() if k in tensors_of(back)})
    assert open_source(back).parts == (part,)


def tensors_of_native(folder: Path) -> dict[str, Tensor]:
    return dict(open_source(folder).tensors(PARTS))


def test_parts_are_put_together(golden: Path, tmp_path: Path) -> None:
    folders = [convert([golden / KINDS[1]], tmp_path / part, "official", [part]) for part in PARTS]
    projector = folders[1] / "model.safetensors"
    together = convert([folders[0], projector, folders[2]], tmp_path / "together", "native")
    whole = convert([golden / KINDS[1]], tmp_path / "whole", "native")
    assert equal(tensors_of(together), tensors_of(whole))
    with pytest.raises(CheckpointError, match="one part or all three, not vision and projector"):
        convert([golden / KINDS[1]], tmp_path / "two", "official", ["vision", "projector"])
    two = convert([golden / KINDS[1]], tmp_path / "two", "native", ["vision", "projector"])
    assert open_source(two).parts == ("vision", "projector")
    with pytest.raises(CheckpointError, match="no weights of language there"):
        convert([two], tmp_path / "three", "native", ["language"])


@pytest.mark.parametrize("prefix", ["mlp1.", ""])
def test_a_projector_file_needs_no_settings(prefix: str, golden: Path, tmp_path: Path) -> None:
    tensors = load_file(golden / KINDS[0] / "model.safetensors")
    file = tmp_path / "mlp.safetensors"
    save_file({prefix + k.removeprefix("mlp1."): v for k, v in tensors.items() if k.startswith("mlp1.")}, file)
    out = convert([file], tmp_path / "out", "native")
    model = load_model(golden / KINDS[0])
    target = InternVL(model.config, model.image_token_id)
    initialise(target, InitConfig(projector=str(out)))
    initialise(target, InitConfig(projector=str(file)))
    assert torch.equal(target.multi_modal_projector.linear_2.weight, model.multi_modal_projector.linear_2.weight)


def test_pickle_files_only_when_allowed(golden: Path, tmp_path: Path, same: Same) -> None:
    source = Path(shutil.copytree(golden / KINDS[0], tmp_path / "source"))
    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="--allow-pickle") as caught:
        convert([source], tmp_path / "out", "native")
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="--allow-pickle"):
        initialise(InternVL(load_model(golden / KINDS[0]).config, 293), InitConfig(vision=str(source)))
    out = convert([source], tmp_path / "out", "native", allow_pickle=True)
    assert all(same(load_model(out), load_model(golden / KINDS[0])).values())


def test_a_pickle_with_code_is_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "run",)  # type: ignore[return-value]

    torch.save({"0.weight": Evil()}, tmp_path / "mlp.bin")
    with pytest.raises(CheckpointError, match="no plain tensors"):
        convert([tmp_path / "mlp.bin"], tmp_path / "out", "native", allow_pickle=True)
    assert not (tmp_path / "run").exists()


def test_impossible_requests_are_refused(golden: Path, tmp_path: Path) -> None:
    source = golden / KINDS[0]
    with pytest.raises(CheckpointError, match="format 'gguf'"):
        convert([source], tmp_path / "out", "gguf")
    with pytest.raises(CheckpointError, match="dtype 'int8'"):
        convert([source], tmp_path / "out", "native", dtype="int8")
    with pytest.raises(CheckpointError, match="parts head: known are vision"):
        convert([source], tmp_path / "out", "native", ["head"])
    with pytest.raises(MissingWeightsError, match="nowhere"):
        convert([tmp_path / "nowhere"], tmp_path / "out", "native")
    vision = convert([source], tmp_path / "vision", "official", ["vision"])
    (vision / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"without a config\.json nothing is known about the vision part"):
        convert([vision], tmp_path / "out", "native")


def test_a_dtype_may_be_chosen_and_is_kept_otherwise(make_model: MakeModel, tmp_path: Path) -> None:
    source = save_model(make_model(), tmp_path / "source", {}, dtype="bfloat16")
    for dtype, expected in ((None, torch.bfloat16), ("float32", torch.float32)):
        out = convert([source], tmp_path / "out", "native", dtype=dtype)
        assert {tensor.dtype for tensor in tensors_of(out).values()} == {expected}
        assert json.loads((out / "config.json").read_text())["dtype"] == str(expected).removeprefix("torch.")


# ---------------------------------------------------------------- a language model published alone


def plain_qwen2(folder: Path, tied: bool, with_tokenizer: bool = True) -> Qwen2ForCausalLM:
    """Write a tiny Qwen2 with four rows more than its tokenizer has tokens, as Qwen2.5 has."""
    tokenizer = train_tokenizer(["one red circle, two blue squares"] * 9, 280)
    kept = json.loads(tokenizer.backend_tokenizer.to_str())
    kept["added_tokens"] = [token for token in kept["added_tokens"] if "|" in token["content"]]
    config = Qwen2Config(
        vocab_size=275,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    model.save_pretrained(folder)
    if with_tokenizer:
        (folder / "tokenizer.json").write_text(json.dumps(kept))
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    return model


@pytest.mark.parametrize("tied", [True, False])
def test_a_plain_language_model_gets_the_nine_tokens(tied: bool, tmp_path: Path) -> None:
    """271 tokens, 275 rows: the nine tokens get rows 271 to 279, four of them rows that Qwen2 left unused."""
    theirs = plain_qwen2(tmp_path / "llm", tied)
    out = convert([tmp_path / "llm"], tmp_path / "out", "native")
    tensors = tensors_of(out)
    rows, head = tensors["model.language_model.embed_tokens.weight"], tensors["lm_head.weight"]
    assert rows.shape == head.shape == (280, 32)
    assert torch.equal(rows[:275], theirs.model.embed_tokens.weight)
    assert 0.01 < rows[275:].std() < 0.03
    assert torch.equal(head[:271], theirs.lm_head.weight[:271])
    torch.testing.assert_close(head[271:], head[:271].mean(0).expand(9, 32))
    settings = open_source(out).settings
    assert settings.language is not None
    assert (settings.language.vocab_size, settings.image_token_id) == (280, 273)
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == 270
    again = convert([out], tmp_path / "again", "official")
    assert equal(tensors_of(convert([again], tmp_path / "back", "native")), tensors)


def test_init_from_reads_a_plain_language_model_alike(tmp_path: Path) -> None:
    plain_qwen2(tmp_path / "llm", tied=True)
    out = convert([tmp_path / "llm"], tmp_path / "out", "native")
    language = open_source(out).settings.language
    assert language is not None
    model = InternVL(ModelConfig(language=language), 273)
    initialise(model, InitConfig(language=str(tmp_path / "llm")))
    assert torch.equal(model.lm_head.weight, tensors_of(out)["lm_head.weight"])


def test_without_a_tokenizer_it_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain_qwen2(tmp_path / "llm", tied=False, with_tokenizer=False)
    with caplog.at_level(logging.WARNING):
        out = convert([tmp_path / "llm"], tmp_path / "out", "native")
    assert any("no tokenizer" in message for message in caplog.messages)
    assert tensors_of(out)["lm_head.weight"].shape == (284, 32)
    assert open_source(out).settings.image_token_id == 284 - 7


def test_internlm2_alone_is_extended_too(golden: Path, tmp_path: Path) -> None:
    out = convert([golden / KINDS[1]], tmp_path / "llm", "official", ["language"])
    edit_config(out, lambda content: content.pop("internvl_lab"))  # as published: the nine tokens are not in it
    before = tensors_of_native(golden / KINDS[1])
    after = tensors_of(convert([out], tmp_path / "out", "native"))
    assert after["lm_head.weight"].shape == (309, 128)
    assert torch.equal(after["lm_head.weight"][:300], before["lm_head.weight"])
    torch.testing.assert_close(after["lm_head.weight"][300:], before["lm_head.weight"].mean(0).expand(9, 128))
    key = "model.language_model.layers.1.self_attn.k_proj.weight"
    assert torch.equal(after[key], before[key])


# ---------------------------------------------------------------- our own folders


def test_tokenizer_system_turn_and_tiling_survive_both_formats(make_model: MakeModel, tmp_path: Path) -> None:
    template = ChatTemplate(train_tokenizer(["one circle, two squares"] * 9, 300))
    tiling = TilingConfig(tile_size=56, num_visual_tokens=4, max_tiles=6)
    source = save_model(make_model(), tmp_path / "source", {}, template=template, tiling=tiling)
    official = convert([source], tmp_path / "official", "official")
    content = json.loads((official / "config.json").read_text())
    assert (content["max_dynamic_patch"], content["force_image_size"], content["use_thumbnail"]) == (6, 56, True)
    native = convert([official], tmp_path / "native", "native")
    for folder in (official, native):
        assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == template.end_id
        assert json.loads((folder / "processor.json").read_text()) == json.loads(
            (source / "processor.json").read_text()
        )
        assert load_model(folder).image_token_id == template.context_id == 293


def test_a_part_of_ours_keeps_its_meaning(make_model: MakeModel, tmp_path: Path) -> None:
    source = save_part(make_model(), "language", tmp_path / "part", {})
    out = convert([source], tmp_path / "official", "official")
    content = json.loads((out / "config.json").read_text())
    assert (content["model_type"], content["architectures"]) == ("qwen2", ["Qwen2ForCausalLM"])
    assert equal(tensors_of(convert([out], tmp_path / "back", "native")), tensors_of(source))
