"""Texts to train a tokenizer on: miniworld's conversations without their random strings.

Random strings would win merges of letters that only ever occur together by chance, and reading
`K7QX` aloud would no longer be one token a character.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from internvl_lab.data.miniworld.text_twin import generate_text

_RANDOM_STRING = re.compile(r"\b(?=[0-9]*[A-Z])[A-Z0-9]{2,}\b")


def tokenizer_corpus(num_samples: int, seed: int) -> Iterator[str]:
    """Yield one text a turn, half of them from `pretrain` and half from `finetune`, without random strings."""
    for split in ("pretrain", "finetune"):
        for sample in generate_text(split, num_samples // 2, seed):
            for turn in sample.record["conversations"]:
                text = _RANDOM_STRING.sub("", turn["value"])
                if text:
                    yield text
