"""Build a fast tokenizer from sentencepiece's `tokenizer.model`, as InternLM2.5 is published.

    tokenizer.model        pieces with scores, normalisation          -> vocabulary, merges, normaliser
    tokenizer_config.json  added_tokens_decoder: id -> <|im_end|> ... -> names of those ids

No remote code: InternLM2.5's own tokenizer classes are not used. The file is parsed by transformers' protobuf classes
and its merges are restored by transformers' `generate_merges`; only protobuf is needed, not sentencepiece.
Source: transformers' `SpmConverter`; the authors' `tokenization_internlm2_fast.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers
from tokenizers.models import BPE, Unigram
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from internvl_lab.errors import ConfigError

SPACE = "▁"
"""How sentencepiece writes a space."""
_UNIGRAM = 1
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4
"""Types of a piece. Source: `sentencepiece_model.proto`."""


def tokenizer_from_sentencepiece(file: Path) -> PreTrainedTokenizerFast:
    """Build a fast tokenizer from `tokenizer.model` and the `tokenizer_config.json` beside it.

    Args:
        file: sentencepiece's model, BPE or unigram.
    Returns:
        A tokenizer whose ids are those of the pieces; `<s>` stands at the start unless `add_bos_token` is false.
    Raises:
        ConfigError: protobuf is missing (the message says what to install), or the file is no sentencepiece model.
    """
    proto = _parse(file)
    config_file = file.parent / "tokenizer_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8")) if config_file.is_file() else {}
    added = {int(index): token for index, token in config.get("added_tokens_decoder", {}).items()}
    names = [added[i]["content"] if i in added else piece.piece for i, piece in enumerate(proto.pieces)]
    backend = Tokenizer(_model(proto, names, set(added)))
    backend.normalizer = _normalizer(proto.normalizer_spec)
    backend.decoder = _decoder(proto.normalizer_spec.add_dummy_prefix)
    _add_tokens(backend, proto, added)
    special = _special_names(config, proto)
    if config.get("add_bos_token", True) and "bos_token" in special:
        _write_bos_first(backend, special["bos_token"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def _parse(file: Path) -> Any:
    """Parse sentencepiece's protobuf."""
    from transformers.convert_slow_tokenizer import import_protobuf

    try:
        proto = import_protobuf().ModelProto()
    except ImportError as error:
        raise ConfigError(
            f"{file} can only be read with protobuf: run `pip install protobuf`, or put a tokenizer.json beside it"
        ) from error
    try:
        proto.ParseFromString(file.read_bytes())
    except Exception as error:  # protobuf's DecodeError lives in another place in each of its versions
        raise ConfigError(f"{file} is no sentencepiece model: {error}") from error
    if not proto.pieces:
        raise ConfigError(f"{file} is no sentencepiece model: it holds no pieces")
    return proto


def _model(proto: Any, names: list[str], added: set[int]) -> BPE | Unigram:
    """Build the model: pieces keep their ids and scores, added tokens only give an id its name."""
    from transformers.convert_slow_tokenizer import generate_merges

    spec = proto.trainer_spec
    scores = [(name, piece.score) for name, piece in zip(names, proto.pieces, strict=True)]
    if spec.model_type == _UNIGRAM:
        return Unigram(scores, unk_id=spec.unk_id, byte_fallback=spec.byte_fallback)
    vocabulary = {name: i for i, name in enumerate(names)}
    whole = {
        name
        for i, (name, piece) in enumerate(zip(names, proto.pieces, strict=True))
        if i in added or piece.type != _NORMAL
    }
    merges = generate_merges(vocabulary, scores, skip_tokens=whole)
    unknown = next((names[i] for i, piece in enumerate(proto.pieces) if piece.type == _UNKNOWN), None)
    return BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=spec.byte_fallback)


def _normalizer(spec: Any) -> normalizers.Normalizer:
    """Do what sentencepiece does to text: character map, spaces, the mark of a text's start."""
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])


def _decoder(add_dummy_prefix: bool) -> decoders.Decoder:
    """Turn pieces back into text."""
    steps: list[decoders.Decoder] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if add_dummy_prefix else steps)


def _add_tokens(backend: Tokenizer, proto: Any, added: dict[int, dict[str, Any]]) -> None:
    """Declare the tokens that no merge may touch: control pieces, user-defined ones, and added tokens, by id."""
    tokens = {
        i: AddedToken(piece.piece, normalized=False, special=piece.type == _CONTROL)
        for i, piece in enumerate(proto.pieces)
        if piece.type in (_CONTROL, _USER_DEFINED)
    }
    for i, token in added.items():
        options = {key: bool(token.get(key, False)) for key in ("lstrip", "rstrip", "single_word")}
        tokens[i] = AddedToken(token["content"], normalized=False, special=bool(token.get("special", True)), **options)
    for i in sorted(tokens):
        backend.add_tokens([tokens[i]])


def _special_names(config: dict[str, Any], proto: Any) -> dict[str, str]:
    """Name the special tokens: what the configuration says, else sentencepiece's own."""
    spec, known = proto.trainer_spec, {piece.piece for piece in proto.pieces}
    names = {"unk_token": spec.unk_piece, "bos_token": spec.bos_piece, "eos_token": spec.eos_piece}
    names = {role: name for role, name in names.items() if name in known}
    for role in ("unk_token", "bos_token", "eos_token", "pad_token"):
        if token := config.get(role):
            names[role] = token["content"] if isinstance(token, dict) else token
    return names


def _write_bos_first(backend: Tokenizer, bos: str) -> None:
    """Put <s> once at the start of an encoded text."""
    backend.post_processor = TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, backend.token_to_id(bos))]
    )
