"""Fit the vocabulary of a language model published alone to InternVL's: nine more tokens at the tokenizer's end.

    rows of the published tables   -> resized to the tokenizer's length, the nine tokens included
    input rows that are new        -> N(0, 0.02), the same on every machine (Qwen2.5's tables have unused rows there)
    output rows of the nine tokens -> the mean of all other output rows

Source: authors' `train/internvl_chat_finetune.py`; spec section 1.5.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from internvl_lab.constants import SPECIAL_TOKENS
from internvl_lab.models.vision import INITIALIZER_RANGE
from internvl_lab.text import has_tokenizer, load_tokenizer, num_missing_tokens

log = logging.getLogger(__name__)

EMBEDDINGS = "model.language_model.embed_tokens.weight"
HEAD = "lm_head.weight"

TOKENIZER_LENGTHS = {151_936: 151_665, 152_064: 151_665}
"""Rows of Qwen2.5's padded tables to the tokens its tokenizer has; used where the tokenizer is missing."""


@dataclass(frozen=True)
class Vocabulary:
    """Say how many rows both tables get, and how many of the last are new tokens."""

    num_rows: int
    num_added: int

    def fit(self, key: str, tensor: Tensor) -> Tensor:
        """Resize one of the two tables; any other tensor comes back as it is.

        Args:
            key: native key.
            tensor: (rows, D) embeddings or output layer, possibly on the meta device.
        Returns:
            (num_rows, D), in the tensor's dtype.
        """
        if key not in (EMBEDDINGS, HEAD) or tensor.ndim != 2:
            return tensor
        num_kept = min(tensor.shape[0], self.num_rows)
        rows = tensor.new_empty(self.num_rows, tensor.shape[1])
        rows[:num_kept] = tensor[:num_kept]
        if tensor.device.type == "meta":
            return rows
        if num_kept < self.num_rows:
            generator = torch.Generator().manual_seed(0)
            rows[num_kept:] = torch.randn(self.num_rows - num_kept, tensor.shape[1], generator=generator)
            rows[num_kept:] *= INITIALIZER_RANGE
        if key == HEAD and self.num_added:
            rows[-self.num_added :] = rows[: -self.num_added].mean(dim=0, dtype=torch.float32).to(rows.dtype)
        return rows


def plan_vocabulary(folder: Path, num_rows: int) -> Vocabulary:
    """Say what becomes of the vocabulary of a language model published alone.

    Without tokenizer files the nine tokens go behind the last row; Qwen2.5's tables are known to be longer than its
    tokenizer, so there they go where its tokenizer ends.

    Args:
        folder: the language model's; its tokenizer counts if it is there.
        num_rows: rows of its embeddings.
    Raises:
        ConfigError: a tokenizer without ChatML's tokens.
    """
    if has_tokenizer(folder):
        tokenizer = load_tokenizer(folder)
        return Vocabulary(len(tokenizer), num_missing_tokens(folder))
    length = TOKENIZER_LENGTHS.get(num_rows, num_rows)
    log.warning("%s holds no tokenizer: the nine tokens get the ids from %d on", folder, length)
    return Vocabulary(length + len(SPECIAL_TOKENS), len(SPECIAL_TOKENS))
