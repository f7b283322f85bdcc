"""What lies beside converted weights: transformers' processor gives our ids and pixels, and generation ends in time."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    InternVLProcessor,
)

from internvl_lab import load
from internvl_lab.checkpoints import convert, resolve_source, save_model
from internvl_lab.checkpoints.companions import chat_template, find_companions, token_ids
from internvl_lab.config import TilingConfig
from internvl_lab.constants import DEFAULT_SYSTEM_MESSAGE, IMAGENET_MEAN, IMAGENET_STD
from internvl_lab.data.miniworld import generate
from internvl_lab.errors import CheckpointError
from internvl_lab.inference import Processor, answer
from internvl_lab.models import InternVL
from internvl_lab.text import ChatTemplate, Turn, load_tokenizer, train_tokenizer

MakeModel = Callable[..., InternVL]
TILING = TilingConfig(tile_size=56, num_visual_tokens=4, max_tiles=6, resize="pillow")
QUESTION = "How many circles?"
MESSAGES = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]


@pytest.fixture
def template() -> ChatTemplate:
    return ChatTemplate(train_tokenizer(["one circle, two squares"] * 9, 300))


@pytest.fixture
def picture() -> Image.Image:
    """Give a picture that is cut into two tiles and a thumbnail."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 130, 3), dtype=np.uint8))


@pytest.fixture
def native(make_model: MakeModel, template: ChatTemplate, tmp_path: Path) -> Path:
    source = save_model(make_model(), tmp_path / "source", {}, template=template, tiling=TILING)
    official = convert([source], tmp_path / "official", "official")
    return convert([official], tmp_path / "native", "native")


def processor_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load transformers' processor; its video part needs torchvision, without which it is left out here."""
    if importlib.util.find_spec("torchvision") is not None:
        return AutoProcessor.from_pretrained(folder)
    monkeypatch.setattr(InternVLProcessor, "check_argument_for_proper_class", lambda *_: None)
    settings = json.loads((folder / "processor_config.json").read_text())
    return InternVLProcessor(
        AutoImageProcessor.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
        image_seq_length=settings["image_seq_length"],
        chat_template=(folder / "chat_template.jinja").read_text(),
    )


def test_transformers_processor_gives_our_ids_and_pixels(
    native: Path, template: ChatTemplate, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pixels: uint8 values divided by 255 and normalised in fp32 on both sides, so 1e-6 is their rounding."""
    theirs = processor_of(native, monkeypatch)
    prompt = theirs.apply_chat_template(MESSAGES, add_generation_prompt=True)
    found = theirs(images=[picture], text=[prompt], return_tensors="pt")
    ours = Processor(template, TILING)(QUESTION, [picture])
    assert DEFAULT_SYSTEM_MESSAGE in prompt
    assert found["input_ids"][0].tolist() == ours.input_ids.tolist()
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    expected = (torch.from_numpy(ours.pixel_values).float() / 255 - mean) / std
    assert found["pixel_values"].shape == (3, 3, 56, 56)
    torch.testing.assert_close(found["pixel_values"].float(), expected, rtol=0, atol=1e-6)


def test_it_loads_and_generates_until_the_end_token(
    native: Path, template: ChatTemplate, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Swap two rows of the output layer, so that the token that would come first is <|im_end|>."""
    theirs = processor_of(native, monkeypatch)
    prompt = theirs.apply_chat_template(MESSAGES, add_generation_prompt=True)
    inputs = theirs(images=[picture], text=[prompt], return_tensors="pt")
    model = AutoModelForImageTextToText.from_pretrained(native).eval()
    with torch.no_grad():
        first = int(model(**inputs).logits[0, -1].argmax())
        rows = model.lm_head.weight[[first, template.end_id]].clone()
        model.lm_head.weight[[template.end_id, first]] = rows
    generated = model.generate(**inputs, max_new_tokens=5)
    assert generated[0, inputs["input_ids"].shape[1] :].tolist() == [template.end_id]


def test_the_template_is_ours_token_by_token(template: ChatTemplate, tmp_path: Path) -> None:
    tokenizer = load_tokenizer_with(template, chat_template(template.system_message, "<img></img>"))
    turns = [Turn("human", "one?"), Turn("gpt", "two"), Turn("human", "<image>\nthree?"), Turn("gpt", "four")]
    messages = [
        {"role": "user", "content": "one?"},
        {"role": "assistant", "content": [{"type": "text", "text": "two"}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "three?"}]},
        {"role": "assistant", "content": "four"},
    ]
    assert apply(tokenizer, messages) == list(template.encode(turns, [0]).input_ids)
    own = [{"role": "system", "content": "Be brief."}, *messages]
    assert apply(tokenizer, own) == list(template.encode([Turn("system", "Be brief."), *turns], [0]).input_ids)
    silent = load_tokenizer_with(template, chat_template("", "<img></img>"))
    assert "system" not in silent.apply_chat_template(messages[:1], tokenize=False)


def load_tokenizer_with(template: ChatTemplate, jinja: str) -> Any:
    tokenizer = template.tokenizer
    tokenizer.chat_template = jinja
    return tokenizer


def apply(tokenizer: Any, messages: list[dict[str, Any]]) -> list[int]:
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    ids: list[int] = tokenizer.encode(text, add_special_tokens=True)
    return ids


def test_the_vocabulary_stays_what_it_was(native: Path, template: ChatTemplate) -> None:
    theirs = AutoTokenizer.from_pretrained(native)
    assert len(theirs) == 300
    assert ChatTemplate(load_tokenizer(native)).fingerprint == template.fingerprint
    assert theirs.convert_tokens_to_ids(theirs.context_image_token) == template.context_id
    config = json.loads((native / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"  # known to transformers 4 and 5 alike


def test_a_missing_thumbnail_is_said(
    make_model: MakeModel, template: ChatTemplate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiling = TilingConfig(tile_size=56, num_visual_tokens=4, use_thumbnail=False)
    source = save_model(make_model(), tmp_path / "source", {}, template=template, tiling=tiling)
    with caplog.at_level(logging.WARNING):
        convert([source], tmp_path / "native", "native")
    assert "always adds a thumbnail" in caplog.text


@pytest.mark.parametrize(("size", "end"), [(151_674, 151_645), (92_553, 92_542), (300, None)])
def test_published_vocabularies_are_known_by_their_size(size: int, end: int | None) -> None:
    assert token_ids(None, size).get("eos_token_id") == end


def test_a_run_checkpoint_finds_its_tokenizer_and_tiling(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = tmp_path / "run" / "stages" / "stage1" / "checkpoints" / "step_00000001.ckpt"
    assert find_companions(checkpoint).template is None
    config: dict[str, Any] = {
        "model": {"language": {"tokenizer": "asset:tokenizer"}},
        "data": {"system_message": "Hi."},
        "tiling": {"tile_size": 56, "num_visual_tokens": 4},
    }
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(json.dumps(config))
    found = find_companions(checkpoint)
    assert found.template is not None
    assert (found.template.system_message, found.tiling) == ("Hi.", TilingConfig(tile_size=56, num_visual_tokens=4))
    config["model"]["language"]["tokenizer"] = str(tmp_path / "gone")
    (tmp_path / "run" / "config.yaml").write_text(json.dumps(config))
    assert find_companions(checkpoint).template is None
    assert "tokenizer is not here" in caplog.text
    (tmp_path / "run" / "config.yaml").write_text("[1]")
    with pytest.raises(CheckpointError, match="describes no run"):
        find_companions(checkpoint)


def test_ten_miniworld_answers_are_the_same_in_plain_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped model, greedy: ours, and transformers' `generate` on what `convert` wrote."""
    model, processor = load("asset:quickstart")
    exact = Processor(processor.template, replace(processor.tiling, resize="pillow"))
    out = convert([resolve_source("asset:quickstart")], tmp_path / "native", "native", dtype="float32")
    theirs = AutoModelForImageTextToText.from_pretrained(out).eval()
    reader = processor_of(out, monkeypatch)
    num_compared = 0
    for sample in generate("val", 40, seed=0):
        text = sample.record["conversations"][0]["value"]
        if len(sample.images) != 1 or not text.startswith("<image>\n") or num_compared == 10:
            continue
        picture = Image.open(io.BytesIO(sample.images[0][1])).convert("RGB")
        question = text.removeprefix("<image>\n")
        content = [{"type": "image"}, {"type": "text", "text": question}]
        prompt = reader.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = reader(images=[picture], text=[prompt], return_tensors="pt")
        ids = theirs.generate(**inputs, max_new_tokens=32)[0, inputs["input_ids"].shape[1] :]
        expected = answer(model, exact, question, [picture], max_new_tokens=32)
        found = reader.tokenizer.decode(ids).removesuffix("<|im_end|>")  # the tokens of boxes are special, and kept
        assert found.strip() == expected.strip(), question
        num_compared += 1
    assert num_compared == 10
