"""Synthetic samples of the shape of the report's data, so that the bench needs neither data nor weights.

    Workload ── draw_samples ──> [Sample] ── pack_samples ──> packs of [Sample]

A quarter of the samples has no image, the others 1 to 13 tiles; text lengths are log-normal. At 112 px this gives
about 43 % visual tokens and 26 % supervised ones. Source: research notes, training engine, section E.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from internvl_lab.config import LanguageConfig, ModelConfig, VisionConfig
from internvl_lab.constants import IGNORE_INDEX, IMAGE_CONTEXT_TOKEN, SPECIAL_TOKENS
from internvl_lab.data.encoding import Sample
from internvl_lab.data.packing import pack_block
from internvl_lab.errors import ConfigError

_TEXT_ONLY_SHARE = 0.25
_SUPERVISED_SHARE = 0.45
"""Of a sample's text: the answer at its end."""
_TEXT_SIGMA = 0.7
"""Of the logarithm of the text length."""
_MIN_TEXT = 8


@dataclass(frozen=True)
class Workload:
    """Describe a model and the samples it is measured on."""

    model: ModelConfig
    num_samples: int = 32
    batch_size: int = 8
    """Samples of a padded batch; 8 = `per_device_train_batch_size` of transformers' Trainer by default."""
    pack_tokens: int = 2048
    pack_tiles: int | None = None
    """Most tiles of a pack; None = no limit."""
    max_tiles: int = 13
    """Most tiles of one sample."""
    median_text: int = 75
    """Median text tokens of a sample; the longest text has eight times as many."""

    def __post_init__(self) -> None:
        """Refuse what leaves nothing to measure."""
        if self.num_samples < 1 or self.batch_size < 1 or (self.pack_tiles is not None and self.pack_tiles < 1):
            raise ConfigError("samples, the batch size and the tiles of a pack must be at least 1")
        if self.pack_tokens < self.model.num_visual_tokens + _MIN_TEXT:
            raise ConfigError(
                f"packs of {self.pack_tokens} tokens have no room for a tile ({self.model.num_visual_tokens} tokens) "
                "and text"
            )

    @property
    def image_token_id(self) -> int:
        """Return the id of `<IMG_CONTEXT>`: the nine added tokens end the vocabulary."""
        return self.num_plain_ids + SPECIAL_TOKENS.index(IMAGE_CONTEXT_TOKEN)

    @property
    def num_plain_ids(self) -> int:
        """Count the ids of ordinary text."""
        return self.model.language.vocab_size - len(SPECIAL_TOKENS)

    @property
    def tiles_of_a_sample(self) -> int:
        """Return the most tiles of a sample that leave room for text in a pack."""
        room = (self.pack_tokens - _MIN_TEXT) // self.model.num_visual_tokens
        return min(self.max_tiles, self.pack_tiles or room, room)

    def with_dtype(self, dtype: str) -> Workload:
        """Return the same workload with parameters of another type."""
        return replace(self, model=replace(self.model, dtype=dtype))


_SMALL = ModelConfig(
    vision=VisionConfig(
        name="bench_vit",
        hidden_size=192,
        num_hidden_layers=6,
        num_attention_heads=3,
        intermediate_size=768,
        image_size=112,
    ),
    language=LanguageConfig(
        name="bench_qwen2",
        hidden_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=1024,
        vocab_size=32000,
    ),
    attention="sdpa_docs",
)
_TINY = replace(
    _SMALL,
    vision=replace(
        _SMALL.vision, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=56
    ),
    language=replace(
        _SMALL.language,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        vocab_size=96,
    ),
)
WORKLOADS = {
    "small": Workload(_SMALL),
    "tiny": Workload(_TINY, num_samples=9, batch_size=2, pack_tokens=64, max_tiles=3, median_text=12),
}
"""`small` is what `make bench` measures; `tiny` is for tests, its figures mean nothing."""


def draw_samples(workload: Workload, seed: int = 0) -> list[Sample]:
    """Draw the samples of a workload, in arrival order; a pure function of its arguments.

    Returns:
        Samples of at most `pack_tokens` tokens: visual tokens, question, answer; only the answer is supervised.
    """
    rng = np.random.default_rng(seed)
    return [_draw_sample(workload, str(number), rng) for number in range(workload.num_samples)]


def pack_samples(
    samples: list[Sample], max_tokens: int, seed: int = 0, max_tiles: int | None = None
) -> list[list[Sample]]:
    """Distribute samples over packs of at most so many tokens and tiles, with the packer that training uses."""
    tokens = np.array([len(sample.input_ids) for sample in samples])
    tiles = np.array([len(sample.tiles) for sample in samples])
    packs = pack_block(tokens, tiles, max_tokens, max_tiles or max(1, int(tiles.sum())), np.random.default_rng(seed))
    return [[samples[position] for position in pack] for pack in packs]


def _draw_sample(workload: Workload, key: str, rng: np.random.Generator) -> Sample:
    num_tiles = 0 if rng.random() < _TEXT_ONLY_SHARE else int(rng.integers(1, workload.tiles_of_a_sample + 1))
    visual = num_tiles * workload.model.num_visual_tokens
    longest = min(8 * workload.median_text, workload.pack_tokens - visual)
    text = int(np.clip(workload.median_text * np.exp(_TEXT_SIGMA * rng.standard_normal()), _MIN_TEXT, longest))
    text_ids = rng.integers(0, workload.num_plain_ids, text)
    input_ids = np.concatenate((np.full(visual, workload.image_token_id), text_ids)).astype(np.int32)
    targets = np.append(input_ids[1:], IGNORE_INDEX)
    answer = max(1, round(_SUPERVISED_SHARE * text))
    targets[: -1 - answer] = IGNORE_INDEX
    edge = workload.model.vision.image_size
    return Sample(
        key=key,
        input_ids=input_ids,
        labels=targets.astype(np.int32),
        loss_weights=(targets != IGNORE_INDEX).astype(np.float32),
        tiles=rng.integers(0, 256, (num_tiles, 3, edge, edge), dtype=np.uint8),
        source_id=0,
        task="",
    )
