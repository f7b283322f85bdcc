r"""Turn a conversation into token ids, labels and a loss mask: template `internvl2_5` (ChatML).

::

    <s>?  <|im_start|>system\n{system}<|im_end|>\n                                             no loss
          <|im_start|>user\n<img><IMG_CONTEXT>*n</img>\n{question}<|im_end|>\n                 no loss
          <|im_start|>assistant\n | {answer}<|im_end|> | \n                          only the middle has loss

Text is tokenised turn by turn with `<img></img>` standing for each image, and the ids of the visual tokens are spliced
in afterwards: 12 times cheaper than tokenising thousands of literal `<IMG_CONTEXT>` and the ids are the same
(special tokens always split the text). Headers, system turns and questions repeat, so pieces are cached.
Source: authors' `internvl/conversation.py` and `preprocess_internvl2_5`; spec section 1.6.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from internvl_lab.constants import (
    DEFAULT_SYSTEM_MESSAGE,
    IGNORE_INDEX,
    IMAGE_CONTEXT_TOKEN,
    IMAGE_END_TOKEN,
    IMAGE_PLACEHOLDER,
    IMAGE_START_TOKEN,
    TURN_END_TOKEN,
    TURN_START_TOKEN,
)
from internvl_lab.errors import ConfigError, SampleError
from internvl_lab.text.tokenizer import leading_bos_id, tokenizer_fingerprint

Ids = NDArray[np.int32]

_ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
_FORBIDDEN = (IMAGE_CONTEXT_TOKEN, IMAGE_START_TOKEN, IMAGE_END_TOKEN, TURN_START_TOKEN, TURN_END_TOKEN)
"""Tokens that only the template writes: in a text they would forge an image or a turn."""
_KEPT_IN_OUTPUT = ("<ref>", "</ref>", "<box>", "</box>")
"""Special tokens that carry the answer of a grounding task."""
_CACHED_PIECES = 4096
_CACHED_CHARACTERS = 1024
"""Longer pieces hardly repeat and would make the cache large."""


@dataclass(frozen=True)
class Turn:
    """Hold one turn of a conversation."""

    role: str
    """`system`, `human` (or `user`), `gpt` (or `assistant`)."""
    text: str


@dataclass(frozen=True)
class EncodedText:
    """Hold one conversation as tokens; T tokens."""

    input_ids: Ids
    """(T,) int32."""
    labels: Ids
    """(T,) int32, NOT shifted: the id itself where supervised, IGNORE_INDEX elsewhere."""
    response_ids: Ids
    """(T,) int32: which assistant response a supervised token belongs to (0, 1, ...), -1 elsewhere."""


class ChatTemplate:
    """Encode conversations for training and generation, and decode what a model answers.

    Instances can be pickled (loader workers); the cache of pieces stays behind.

    Args:
        tokenizer: has ChatML's and InternVL's special tokens (`load_tokenizer`, `train_tokenizer`).
        system_message: of conversations without a system turn of their own; None = the report's, "" = none.

    Raises:
        ConfigError: a special token is missing.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, system_message: str | None = None) -> None:
        self.tokenizer = tokenizer
        # A copy, because a call with truncation leaves truncation switched on in the tokenizer's own backend.
        self._backend = copy.deepcopy(tokenizer.backend_tokenizer)
        self._backend.no_truncation()
        self._backend.no_padding()
        self.system_message = DEFAULT_SYSTEM_MESSAGE if system_message is None else system_message
        self.context_id = self._token_id(IMAGE_CONTEXT_TOKEN)
        self.image_start_id = self._token_id(IMAGE_START_TOKEN)
        self.end_id = self._token_id(TURN_END_TOKEN)
        self.pad_id = self.end_id if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        self.bos_id = leading_bos_id(tokenizer)
        self._cached_ids = lru_cache(_CACHED_PIECES)(self._tokenize)
        self._header = self._ids(_header("assistant"))
        self._num_trailing = len(self._ids(f"{TURN_END_TOKEN}\n")) - 1

    def encode(self, turns: Sequence[Turn], tokens_per_image: Sequence[int], key: str = "") -> EncodedText:
        """Encode a conversation with its loss mask.

        Args:
            turns: the conversation; a leading system turn overrides the template's.
            tokens_per_image: visual tokens (>= 0) for each `<image>` of the human turns, in order.
            key: the sample's key, for messages.

        Raises:
            SampleError: `bad_role`, `special_token_in_text` or `image_count`.
        """
        parts: list[Ids] = []
        spans: list[tuple[int, int]] = []
        length = 0
        for role, ids in self._encode_turns(turns, tokens_per_image, key):
            parts.append(ids)
            if role == "assistant":
                spans.append((length + len(self._header), length + len(ids) - self._num_trailing))
            length += len(ids)
        input_ids = np.concatenate(parts) if parts else np.empty(0, np.int32)
        labels = np.full(length, IGNORE_INDEX, np.int32)
        response_ids = np.full(length, -1, np.int32)
        for number, (start, stop) in enumerate(spans):
            labels[start:stop] = input_ids[start:stop]
            response_ids[start:stop] = number
        return EncodedText(input_ids, labels, response_ids)

    def turn_lengths(
        self, turns: Sequence[Turn], tokens_per_image: Sequence[int], key: str = ""
    ) -> tuple[int, list[int]]:
        """Count the tokens of a conversation turn by turn; they add up to what `encode` gives.

        Returns:
            (tokens before the first turn: BOS and the template's own system turn, tokens of each turn).

        Raises:
            SampleError: as in `encode`.
        """
        encoded = self._encode_turns(turns, tokens_per_image, key)
        own = [len(ids) for _, ids in encoded[len(encoded) - len(turns) :]]
        prefix = sum(len(ids) for _, ids in encoded) - sum(own)
        if own and len(encoded) == len(turns) and self.bos_id is not None:  # BOS stands in the first turn
            prefix, own[0] = prefix + 1, own[0] - 1
        return prefix, own

    @property
    def answer_header_length(self) -> int:
        """Count the tokens that open an assistant turn."""
        return len(self._header)

    def encode_prompt(self, turns: Sequence[Turn], tokens_per_image: Sequence[int], key: str = "") -> Ids:
        """Encode a conversation up to where the model answers: the ids end with the assistant's header.

        Returns:
            (T,) int32.

        Raises:
            SampleError: as in `encode`; also `bad_role` if the last turn is not a human's: an answer would leak.
        """
        encoded = self._encode_turns(turns, tokens_per_image, key)
        if not encoded or encoded[-1][0] != "user":
            raise SampleError(key, "bad_role", "a prompt must end with a human turn")
        return np.concatenate([*(ids for _, ids in encoded), self._header])

    def decode(self, ids: Sequence[int] | NDArray[np.integer[Any]]) -> str:
        """Return the text of ids (T,) without special tokens, but with <ref>, </ref>, <box>, </box>."""
        kept = [int(token) for token in ids if int(token) not in self._skipped_ids]
        text: str = self._backend.decode(kept, skip_special_tokens=False)
        return text

    @cached_property
    def fingerprint(self) -> str:
        """Hash what decides the ids of a conversation: tokenizer and system message. 16 hexadecimal digits."""
        state = json.dumps(["internvl2_5", tokenizer_fingerprint(self.tokenizer), self.system_message])
        return hashlib.sha256(state.encode()).hexdigest()[:16]

    @cached_property
    def _skipped_ids(self) -> frozenset[int]:
        """Return the ids that never appear in decoded text."""
        added = self._backend.get_added_tokens_decoder()
        return frozenset(i for i, token in added.items() if token.special and token.content not in _KEPT_IN_OUTPUT)

    def _encode_turns(self, turns: Sequence[Turn], tokens_per_image: Sequence[int], key: str) -> list[tuple[str, Ids]]:
        """Return (ChatML role, ids) of each turn, the system turn included; BOS belongs to the first."""
        encoded: list[tuple[str, Ids]] = []
        if self.system_message and not (turns and turns[0].role == "system"):
            encoded.append(("system", self._encode_plain("system", self.system_message)))
        num_images = 0
        for position, turn in enumerate(turns):
            role = _check(turn, position, key)
            if role == "assistant":
                encoded.append((role, self._encode_answer(turn.text)))
            elif role == "user" and (count := turn.text.count(IMAGE_PLACEHOLDER)):
                counts = tokens_per_image[num_images : num_images + count]
                num_images += count
                if len(counts) == count:
                    encoded.append((role, self._encode_visual(turn.text, counts)))
            else:
                encoded.append((role, self._encode_plain(role, turn.text)))
        if num_images != len(tokens_per_image):
            raise SampleError(
                key, "image_count", f"{num_images} {IMAGE_PLACEHOLDER} in the text, {len(tokens_per_image)} images"
            )
        if self.bos_id is not None and encoded:
            role, ids = encoded[0]
            encoded[0] = (role, np.concatenate([np.array([self.bos_id], np.int32), ids]))
        return encoded

    def _encode_plain(self, role: str, text: str) -> Ids:
        """Encode one turn without images."""
        return self._ids(f"{_header(role)}{text}{TURN_END_TOKEN}\n")

    def _encode_visual(self, text: str, counts: Sequence[int]) -> Ids:
        """Encode one human turn and splice `counts[i]` visual tokens behind its i-th <img>."""
        ids = self._encode_plain("user", text.replace(IMAGE_PLACEHOLDER, IMAGE_START_TOKEN + IMAGE_END_TOKEN))
        behind = np.flatnonzero(ids == self.image_start_id) + 1
        return np.insert(ids, np.repeat(behind, counts), self.context_id)

    def _encode_answer(self, text: str) -> Ids:
        """Encode one assistant turn such that its first ids are exactly the header's.

        An answer that begins with a newline may merge with the header's. The prompt of a generation ends with the
        unmerged header, so training has to show the same: header and answer are then tokenised apart.
        """
        ids = self._encode_plain("assistant", text)
        if np.array_equal(ids[: len(self._header)], self._header):
            return ids
        # Behind a special token, as in its place, so that a tokenizer that marks the start of a text adds nothing.
        return np.concatenate([self._header, self._ids(f"{TURN_START_TOKEN}{text}{TURN_END_TOKEN}\n")[1:]])

    def _ids(self, text: str) -> Ids:
        """Tokenise a piece of text, from the cache if it is short."""
        return self._cached_ids(text) if len(text) <= _CACHED_CHARACTERS else self._tokenize(text)

    def _tokenize(self, text: str) -> Ids:
        """Tokenise a piece of text; read-only, because the cache hands the same array out again."""
        ids = np.array(self._backend.encode(text, add_special_tokens=False).ids, np.int32)
        ids.flags.writeable = False
        return ids

    def _token_id(self, token: str) -> int:
        """Return the id of a special token that has to exist."""
        token_id: int | None = self._backend.token_to_id(token)
        if token_id is None:
            raise ConfigError(f"the tokenizer has no {token}: load it with text.load_tokenizer")
        return token_id

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_cached_ids"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cached_ids = lru_cache(_CACHED_PIECES)(self._tokenize)


def _header(role: str) -> str:
    """Return what opens a turn of a ChatML role."""
    return f"{TURN_START_TOKEN}{role}\n"


def _check(turn: Turn, position: int, key: str) -> str:
    """Return the ChatML role of a turn, or condemn the sample."""
    role = _ROLES.get(turn.role)
    if role is None or (role == "system" and position > 0):
        raise SampleError(key, "bad_role", f"turn {position} has role {turn.role!r}")
    for token in _FORBIDDEN:
        if token in turn.text:
            raise SampleError(key, "special_token_in_text", f"turn {position} contains {token}")
    return role
