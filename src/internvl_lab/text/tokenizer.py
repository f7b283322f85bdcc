"""Train, load and identify tokenizers.

The vocabulary of a trained tokenizer, in order of ids::

    256 bytes | merges ... | <|endoftext|> <|im_start|> <|im_end|> | <img> </img> <IMG_CONTEXT> <quad> ... </box>

Digits are never merged, as in Qwen2.5: coordinates (0-1000) and counts then cost one token a digit and share their
embeddings. Loading goes through `tokenizer.json` or `tokenizer.model` alone: no remote code, no network.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from internvl_lab.constants import END_OF_TEXT_TOKEN, SPECIAL_TOKENS, TURN_END_TOKEN, TURN_START_TOKEN
from internvl_lab.errors import ConfigError, MissingWeightsError
from internvl_lab.text.sentencepiece import tokenizer_from_sentencepiece

logger = logging.getLogger(__name__)

CHAT_TOKENS = (END_OF_TEXT_TOKEN, TURN_START_TOKEN, TURN_END_TOKEN)
ASSETS = Path(__file__).resolve().parent.parent / "assets"
TOKENIZER_FILE = "tokenizer.json"
SENTENCEPIECE_FILE = "tokenizer.model"
NUM_BYTES = 256

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where merges may not cross. Source: Qwen2.5's tokenizer.json; `\\p{N}` without `+` keeps digits single."""


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with ChatML's and InternVL's special tokens at its end.

    Args:
        texts: the corpus; read once.
        vocab_size: entries in all, special tokens included. Where the corpus yields too few merges, reserved tokens
            `<|unused_k|>` fill the gap, because a model's embedding table has exactly this many rows.

    Returns:
        A tokenizer with `len(...) == vocab_size`, padding <|endoftext|>, end of sequence <|im_end|>.

    Raises:
        ConfigError: vocab_size has no room for the bytes and the special tokens.
    """
    special = (*CHAT_TOKENS, *SPECIAL_TOKENS)
    num_learned = vocab_size - len(special)
    if num_learned < NUM_BYTES:
        raise ConfigError(f"vocab_size={vocab_size} must be at least {NUM_BYTES + len(special)}")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_SPLIT), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=num_learned, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    unused = [f"<|unused_{k}|>" for k in range(num_learned - backend.get_vocab_size())]
    if unused:
        logger.warning("the corpus yields %d merges too few; reserved tokens fill the vocabulary", len(unused))
    backend.add_special_tokens([*unused, *special])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=TURN_END_TOKEN, pad_token=END_OF_TEXT_TOKEN)


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerFast:
    """Load a tokenizer from a folder with `tokenizer.json` or sentencepiece's `tokenizer.model`, no remote code.

    Those of InternVL's nine tokens that are missing are added at the end, in the authors' order: a Qwen2.5 folder
    gives <img> = 151665 ... </box> = 151673 (spec section 1.5).

    Args:
        source: `asset:NAME` for a tokenizer shipped with the package, else a folder.

    Raises:
        MissingWeightsError: there is neither file; the message names the path.
        ConfigError: the tokenizer lacks ChatML's <|im_start|> or <|im_end|>, or `tokenizer.model` cannot be read.
    """
    text = str(source)
    folder = ASSETS / text.removeprefix("asset:") if text.startswith("asset:") else Path(text)
    tokenizer = _read(folder, text)
    known = tokenizer.get_vocab()
    for token in (TURN_START_TOKEN, TURN_END_TOKEN):
        if token not in known:
            raise ConfigError(f"tokenizer {folder} has no {token}: the chat template of InternVL 2.5 needs it")
    missing = [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS if token not in known]
    if missing:
        logger.info("added %d of InternVL's tokens to %s", len(missing), folder)
        tokenizer.add_tokens(missing, special_tokens=True)
    _apply_bos_flag(tokenizer, folder)
    return tokenizer


def has_tokenizer(folder: Path) -> bool:
    """Say whether a folder holds a tokenizer that `load_tokenizer` reads."""
    return (folder / TOKENIZER_FILE).is_file() or (folder / SENTENCEPIECE_FILE).is_file()


def num_missing_tokens(folder: Path) -> int:
    """Count InternVL's tokens that the tokenizer in `folder` lacks, and that `load_tokenizer` adds at its end."""
    known = _read(folder, str(folder)).get_vocab()
    return sum(token not in known for token in SPECIAL_TOKENS)


def _read(folder: Path, asked: str) -> PreTrainedTokenizerFast:
    """Read a folder's tokenizer as it is."""
    if (folder / TOKENIZER_FILE).is_file():
        try:
            tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # the tokenizers library raises no class of its own
            raise ConfigError(f"{folder / TOKENIZER_FILE} is no tokenizer that can be read: {error}") from error
        return tokenizer
    if (folder / SENTENCEPIECE_FILE).is_file():
        return tokenizer_from_sentencepiece(folder / SENTENCEPIECE_FILE)
    raise MissingWeightsError(f"no tokenizer at {folder / TOKENIZER_FILE} (asked for {asked!r})")


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """Hash what decides the ids: vocabulary, merges, splitting rules and special tokens.

    Returns:
        16 hexadecimal digits; equal for a tokenizer and its saved and loaded copy.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    relevant = {name: state.get(name) for name in ("model", "added_tokens", "normalizer", "pre_tokenizer")}
    relevant["bos"] = leading_bos_id(tokenizer)
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:16]


def leading_bos_id(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """Return the id that stands once at the very start of a conversation, or None.

    InternLM2.5 has one (<s>), Qwen2.5 none. The post-processor of the tokenizer is the one place that says so and that
    survives saving and loading; `load_tokenizer` writes a folder's flag `add_bos_token` into it.
    """
    bos_id: int | None = tokenizer.bos_token_id
    written: list[int] = tokenizer.backend_tokenizer.encode("", add_special_tokens=True).ids
    return bos_id if bos_id is not None and written[:1] == [bos_id] else None


def _apply_bos_flag(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Make the tokenizer obey `add_bos_token` of its folder, which transformers 5 drops beside a `tokenizer.json`."""
    config_file = folder / "tokenizer_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8")) if config_file.is_file() else {}
    flag = config.get("add_bos_token")
    if flag is not None and flag != (leading_bos_id(tokenizer) is not None):
        tokenizer.add_bos_token = flag  # type: ignore[misc]  # its setter stands apart, so mypy misses it
