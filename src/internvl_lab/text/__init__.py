"""Text: the tokenizer, the chat template with its loss mask, and a measure of repetition."""

from internvl_lab.text.chain_of_thought import boxed, cot_prompt, options_of
from internvl_lab.text.repetition import Repetition, is_looping, looping_share, measure_repetition, repeated_ngram_share
from internvl_lab.text.template import ChatTemplate, EncodedText, Turn
from internvl_lab.text.tokenizer import (
    has_tokenizer,
    load_tokenizer,
    num_missing_tokens,
    tokenizer_fingerprint,
    train_tokenizer,
)

__all__ = [
    "ChatTemplate",
    "EncodedText",
    "Repetition",
    "Turn",
    "boxed",
    "cot_prompt",
    "has_tokenizer",
    "is_looping",
    "load_tokenizer",
    "looping_share",
    "measure_repetition",
    "num_missing_tokens",
    "options_of",
    "repeated_ngram_share",
    "tokenizer_fingerprint",
    "train_tokenizer",
]
