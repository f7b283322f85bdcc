"""Vocabulary layout, exact text round trip, loading of our own and of foreign folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from internvl_lab.constants import SPECIAL_TOKENS
from internvl_lab.errors import ConfigError, MissingWeightsError
from internvl_lab.text import load_tokenizer, tokenizer_fingerprint, train_tokenizer
from internvl_lab.text.tokenizer import CHAT_TOKENS, leading_bos_id

VOCAB_SIZE = 512
COLOURS = ("red", "green", "blue", "purple", "orange", "yellow", "black", "white")
SHAPES = ("circle", "square", "triangle", "star", "hexagon", "pentagon", "cross", "ring")
CORPUS = [
    f"What colour is the {shape} on the left?\n\nThe {shape} is {colour}, number {k}{k}7, near <box>[[1, 2, 30, 40]]."
    f" A document lists invoices, totals, dates and names: {colour}ish {shape}s, quantity {k}, price {k * 37}."
    for k, (colour, shape) in enumerate((c, s) for c in COLOURS for s in SHAPES)
]
TOKENIZER = train_tokenizer(CORPUS, VOCAB_SIZE)


def ids(text: str) -> list[int]:
    return TOKENIZER.backend_tokenizer.encode(text, add_special_tokens=False).ids


def byte_level(special: list[str]) -> Tokenizer:
    """A tokenizer of single bytes, as a stand-in for a foreign folder."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: k for k, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(special)
    return backend


def save_foreign(folder: Path, backend: Tokenizer, **config: object) -> Path:
    """Write a folder as a published model has it: files only, with a class of its own in the config."""
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_vocabulary_has_the_asked_size_and_the_special_tokens_at_its_end() -> None:
    assert len(TOKENIZER) == VOCAB_SIZE
    last = TOKENIZER.convert_ids_to_tokens(list(range(VOCAB_SIZE - 12, VOCAB_SIZE)))
    assert last == [*CHAT_TOKENS, *SPECIAL_TOKENS]
    assert (TOKENIZER.pad_token, TOKENIZER.eos_token, TOKENIZER.bos_token) == ("<|endoftext|>", "<|im_end|>", None)


@pytest.mark.parametrize("token", [*CHAT_TOKENS, *SPECIAL_TOKENS])
def test_special_tokens_are_single_ids_inside_text(token: str) -> None:
    assert ids(f"a{token}b") == [*ids("a"), TOKENIZER.convert_tokens_to_ids(token), *ids("b")]


def test_merges_are_learned_and_digits_stay_apart() -> None:
    assert len(ids(" circle")) == 1
    assert [TOKENIZER.decode([k]) for k in ids("1007")] == ["1", "0", "0", "7"]


@given(st.text(max_size=40))
@settings(max_examples=30)
def test_every_text_survives_the_round_trip(text: str) -> None:
    assert TOKENIZER.backend_tokenizer.decode(ids(text), skip_special_tokens=False) == text


def test_small_corpus_is_filled_up_to_the_exact_size() -> None:
    tokenizer = train_tokenizer(["ab ab"], 300)
    assert len(tokenizer) == 300
    assert tokenizer.convert_tokens_to_ids("</box>") == 299


def test_vocabulary_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="vocab_size=267"):
        train_tokenizer(CORPUS, 267)


def test_training_is_deterministic() -> None:
    assert tokenizer_fingerprint(train_tokenizer(iter(CORPUS), VOCAB_SIZE)) == tokenizer_fingerprint(TOKENIZER)
    assert tokenizer_fingerprint(train_tokenizer(CORPUS[:-8], VOCAB_SIZE)) != tokenizer_fingerprint(TOKENIZER)


def test_saved_and_loaded_tokenizer_is_the_same(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert tokenizer_fingerprint(loaded) == tokenizer_fingerprint(TOKENIZER)
    assert (loaded.pad_token_id, loaded.eos_token_id) == (TOKENIZER.pad_token_id, TOKENIZER.eos_token_id)


def test_qwen_style_folder_gets_the_nine_tokens_behind_its_own(tmp_path: Path) -> None:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>"]
    config = {"tokenizer_class": "Qwen2Tokenizer", "pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
    folder = save_foreign(tmp_path / "qwen", byte_level(special), add_bos_token=False, bos_token=None, **config)
    tokenizer = load_tokenizer(folder)
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(260, 269))
    encoded = tokenizer.backend_tokenizer.encode("x<IMG_CONTEXT>", add_special_tokens=False).ids
    assert encoded[1:] == [262]
    assert leading_bos_id(tokenizer) is None


@pytest.mark.parametrize("told_by", ["config", "post_processor"])
def test_internlm_style_folder_has_a_leading_bos(tmp_path: Path, told_by: str) -> None:
    backend = byte_level(["<s>", "</s>", "<|im_end|>", "<|im_start|>"])
    flags = {"add_bos_token": True} if told_by == "config" else {}
    if told_by == "post_processor":
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
    remote = {"AutoTokenizer": ["tokenization_internlm2.Slow", "tokenization_internlm2_fast.Fast"]}
    folder = save_foreign(tmp_path / "internlm", backend, bos_token="<s>", eos_token="</s>", auto_map=remote, **flags)
    tokenizer = load_tokenizer(folder)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert leading_bos_id(tokenizer) == 256
    tokenizer.save_pretrained(tmp_path / "again")
    assert leading_bos_id(load_tokenizer(tmp_path / "again")) == 256


def test_bos_flag_of_a_folder_wins_over_its_post_processor(tmp_path: Path) -> None:
    backend = byte_level(["<s>", "<|im_end|>", "<|im_start|>"])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
    tokenizer = load_tokenizer(save_foreign(tmp_path / "off", backend, bos_token="<s>", add_bos_token=False))
    assert leading_bos_id(tokenizer) is None


def test_folder_without_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match=str(tmp_path / "tokenizer.json")):
        load_tokenizer(tmp_path)


def test_unreadable_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ConfigError, match=r"tokenizer\.json is no tokenizer"):
        load_tokenizer(tmp_path)


def test_missing_asset_is_named() -> None:
    with pytest.raises(MissingWeightsError, match=r"assets/no_such_tokenizer/tokenizer\.json"):
        load_tokenizer("asset:no_such_tokenizer")


def test_tokenizer_without_chatml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="im_start"):
        load_tokenizer(save_foreign(tmp_path / "plain", byte_level(["<|im_end|>"])))
