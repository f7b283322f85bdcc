"""`tokenizer.model` becomes a fast tokenizer: ids by hand, InternLM2.5's names, one error for what is missing.

Most models here are put together by hand, piece by piece, so that neither sentencepiece nor a download is needed.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from transformers.convert_slow_tokenizer import import_protobuf

from internvl_lab.constants import SPECIAL_TOKENS
from internvl_lab.errors import ConfigError
from internvl_lab.text import ChatTemplate, Turn, load_tokenizer, num_missing_tokens
from internvl_lab.text.sentencepiece import tokenizer_from_sentencepiece
from internvl_lab.text.tokenizer import leading_bos_id

# `from transformers import ...` gives the module or, where it is loaded already, the function of the same name.
convert_slow_tokenizer = importlib.import_module("transformers.convert_slow_tokenizer")

WORDS = ["▁", "a", "b", "c", "s", "t", "ab", "ca", "cat", "▁cat", "▁ab"]
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
BYTES = [f"<0x{value:02X}>" for value in range(256)]
FIRST_WORD = 3 + 256
RENAMED = {"<|im_end|>": "[UNUSED_1]", "<|im_start|>": "[UNUSED_2]"}


def write_model(folder: Path, *, dummy_prefix: bool = False, user_defined: tuple[str, ...] = ()) -> Path:
    """Write a BPE model as InternLM2's: control pieces, bytes, words in order of their merges, two unused pieces."""
    proto = import_protobuf().ModelProto()
    pieces = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL), *((byte, BYTE) for byte in BYTES)]
    pieces += [*((word, NORMAL) for word in WORDS), *((name, NORMAL) for name in RENAMED.values())]
    pieces += [(name, USER_DEFINED) for name in user_defined]
    for number, (name, kind) in enumerate(pieces):
        proto.pieces.add(piece=name, type=kind, score=-float(max(number - FIRST_WORD, 0)))
    proto.trainer_spec.model_type = 2
    proto.trainer_spec.byte_fallback = True
    proto.normalizer_spec.add_dummy_prefix = dummy_prefix
    proto.normalizer_spec.remove_extra_whitespaces = False
    folder.mkdir(exist_ok=True)
    file = folder / "tokenizer.model"
    file.write_bytes(proto.SerializeToString())
    return file


def write_config(folder: Path, **settings: Any) -> None:
    """Write what InternLM2.5 publishes beside its model: the unused pieces' ids carry ChatML's tokens."""
    first = FIRST_WORD + len(WORDS)
    added = {str(first + n): {"content": name, "special": True} for n, name in enumerate(RENAMED)}
    content = {"added_tokens_decoder": added, "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))


def word(name: str) -> int:
    return FIRST_WORD + WORDS.index(name)


def test_pieces_keep_their_ids_and_merge_by_score(tmp_path: Path) -> None:
    """`ab` scores above `ca` and `cat`: `cab` is c, ab; where no b follows, ca and cat win."""
    tokenizer = tokenizer_from_sentencepiece(write_model(tmp_path))
    encode = tokenizer.backend_tokenizer.encode
    assert encode("cab", add_special_tokens=False).ids == [word("c"), word("ab")]
    assert encode("cats cat", add_special_tokens=False).ids == [word("cat"), word("s"), word("▁cat")]
    assert encode("é", add_special_tokens=False).ids == [3 + 0xC3, 3 + 0xA9]


@pytest.mark.parametrize("dummy_prefix", [False, True])
def test_text_comes_back(dummy_prefix: bool, tmp_path: Path) -> None:
    tokenizer = tokenizer_from_sentencepiece(write_model(tmp_path, dummy_prefix=dummy_prefix))
    ids = tokenizer.backend_tokenizer.encode("cat  abé\ncat", add_special_tokens=False).ids
    assert (ids[0] == word("▁cat")) == dummy_prefix
    assert tokenizer.decode(ids) == "cat  abé\ncat"


def test_internlms_added_tokens_and_the_nine_have_the_ids_of_the_spec(tmp_path: Path) -> None:
    write_model(tmp_path)
    write_config(tmp_path)
    num_pieces = FIRST_WORD + len(WORDS) + len(RENAMED)
    assert num_missing_tokens(tmp_path) == 9
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.convert_tokens_to_ids(list(RENAMED)) == [num_pieces - 2, num_pieces - 1]
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [num_pieces + n for n in range(9)]
    assert len(tokenizer) == num_pieces + 9
    template = ChatTemplate(tokenizer, "")
    ids = template.encode([Turn("human", "cat"), Turn("gpt", "ab")], []).input_ids
    assert ids[0] == 1  # <s>, once
    assert list(ids).count(1) == 1
    assert list(ids).count(template.end_id) == 2
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 2)


def test_a_saved_copy_is_the_same_without_the_model_file(tmp_path: Path) -> None:
    write_model(tmp_path / "a", user_defined=("<|x|>",))
    write_config(tmp_path / "a")
    tokenizer = load_tokenizer(tmp_path / "a")
    tokenizer.save_pretrained(tmp_path / "b")
    turns = [Turn("human", "cat <|x|>cat"), Turn("gpt", "ab\ncats")]
    one, other = (ChatTemplate(load_tokenizer(tmp_path / name)) for name in "ab")
    assert list(one.encode(turns, []).input_ids) == list(other.encode(turns, []).input_ids)


@pytest.mark.parametrize(("flag", "expected"), [(None, 1), (True, 1), (False, None)])
def test_the_start_token_obeys_its_flag(flag: bool | None, expected: int | None, tmp_path: Path) -> None:
    write_model(tmp_path)
    write_config(tmp_path, **({} if flag is None else {"add_bos_token": flag}))
    assert leading_bos_id(load_tokenizer(tmp_path)) == expected


def test_without_protobuf_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path)
    for name in ("is_sentencepiece_available", "is_protobuf_available"):
        monkeypatch.setattr(convert_slow_tokenizer, name, lambda: False)
    with pytest.raises(ConfigError, match="pip install protobuf") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs\n"])
def test_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(ConfigError, match="no sentencepiece model"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_ids_equal_those_of_sentencepiece(kind: str, tmp_path: Path) -> None:
    """Train with sentencepiece itself and compare ids, where it is installed."""
    sentencepiece = pytest.importorskip("sentencepiece")
    corpus = [f"a red circle, {n} blue squares and the colour of the {n}th star" for n in range(300)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=360,
        model_type=kind,
        byte_fallback=True,
        user_defined_symbols=["<|im_start|>", "<|im_end|>"],
        hard_vocab_limit=False,
    )
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    ours = tokenizer_from_sentencepiece(tmp_path / "tokenizer.model").backend_tokenizer
    for text in (*corpus[:20], "quite unseen: ünïcode 汉字 12345", "  two  spaces "):
        assert ours.encode(text, add_special_tokens=False).ids == theirs.encode(text), text
