"""Answer the questions of somebody else's harness with a checkpoint of ours, through our own generation.

::

    text + pictures | video files ─ tile limit of the set ─ Processor ─> Prompt ─ Generator (batched) ─> answers
                                       └ a question that cannot be asked: answered "", logged and counted

The prompt's words are the harness's business; placeholders are added where its text has none.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from internvl_lab.checkpoints import load_model, resolve_source
from internvl_lab.checkpoints.companions import default_tiling, find_companions
from internvl_lab.config import SamplingConfig
from internvl_lab.config.harness import HarnessConfig
from internvl_lab.constants import IMAGE_PLACEHOLDER
from internvl_lab.data.video import FRAME_SUFFIXES
from internvl_lab.errors import CheckpointError, ConfigError, SampleError, TokenMismatchError
from internvl_lab.evaluation.items import number_images
from internvl_lab.evaluation.runner import move_to_device
from internvl_lab.evaluation.suites import limit_tiles
from internvl_lab.inference.chat import read_image, read_video
from internvl_lab.inference.generation import GREEDY, Generator, Prompt
from internvl_lab.inference.processor import Processor

logger = logging.getLogger(__name__)

MAX_TILES = 6
"""Of all other sets."""
TILES_BY_SET = {
    "chartqa": 12,
    "mmmu": 12,
    "mmerealworld": 12,
    "vcr": 12,
    "ocrvqa": 12,
    "docvqa": 18,
    "dude": 18,
    "mmlongbench": 18,
    "slidevqa": 18,
    "infovqa": 24,
    "ocrbench": 24,
    "hrbench": 24,
}
"""Beginning of a set's name, without punctuation -> tile limit of a picture. Source: spec section 11.1."""


@dataclass(frozen=True)
class Question:
    """Hold one question of a harness."""

    text: str
    images: tuple[Image.Image, ...] = ()
    """Pictures in order, or the frames of a video."""
    is_video: bool = False
    key: str = "question"
    """Name for messages, and a seed of the draws."""
    max_tiles: int = MAX_TILES
    """Tile limit of each picture."""


@dataclass(frozen=True)
class Decoding:
    """Say how answers are decoded."""

    max_new_tokens: int
    sampling: SamplingConfig = GREEDY
    until: tuple[str, ...] = ()
    """An answer ends before the first of these."""

    def cut(self, answer: str) -> str:
        """Return the answer up to the first stop text, without outer white space."""
        places = [place for text in self.until if (place := answer.find(text)) >= 0]
        return answer[: min(places, default=len(answer))].strip()


def read_decoding(values: Mapping[str, Any], cfg: HarnessConfig) -> Decoding:
    """Read the generation settings of a harness, named as transformers' `generate` names them.

    `do_sample: false`, or temperature 0, is greedy; `do_sample: true` alone means temperature 1. Beams are not
    implemented: more than one is refused.

    Raises:
        ConfigError: impossible or unsupported values.
    """
    if (values.get("num_beams") or 1) != 1:
        raise ConfigError(f"num_beams={values['num_beams']}: beam search is not supported, use 1")
    given = values.get("temperature")
    temperature = float(bool(values.get("do_sample")) if given is None else given)
    if values.get("do_sample") is False or temperature == 0:
        sampling = GREEDY
    else:
        sampling = SamplingConfig(
            temperature,
            float(values.get("top_p") or 1.0),
            int(values.get("top_k") or 0),
            float(values.get("repetition_penalty") or 1.0),
            seed=cfg.seed,
        )
    until = values.get("until") or ()
    stops = (until,) if isinstance(until, str) else tuple(until)
    return Decoding(int(values.get("max_new_tokens") or cfg.max_new_tokens), sampling, tuple(filter(None, stops)))


def tiles_of(name: str, cfg: HarnessConfig) -> int:
    """Return the tile limit of each picture of a set, as the setting or the set's name says."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    found = (limit for beginning, limit in TILES_BY_SET.items() if plain.startswith(beginning))
    return cfg.max_tiles or next(found, MAX_TILES)


class HarnessModel:
    """Hold a loaded checkpoint and count what it could not answer.

    Args:
        cfg: checkpoint and limits.
    Raises:
        MissingWeightsError, CheckpointError: no such checkpoint, or one without a tokenizer.
        ConfigError: a device that is not there.
    """

    def __init__(self, cfg: HarnessConfig) -> None:
        folder = resolve_source(cfg.checkpoint)
        found = find_companions(folder)
        if found.template is None:
            raise CheckpointError(f"{folder} has no tokenizer: add tokenizer.json, or convert it with its tokenizer")
        self.cfg, self.template = cfg, found.template
        self.model = move_to_device(load_model(folder, dtype=cfg.dtype), cfg.device)
        self.tiling = found.tiling or default_tiling(self.model.config)
        self.num_skipped = 0

    def answer(self, questions: Sequence[Question], decoding: Decoding) -> list[str]:
        """Answer questions side by side, in batches.

        Returns:
            One text a question, in order; "" where a question cannot be asked.
        """
        prompts = [self.prompt(question) for question in questions]
        asked = [prompt for prompt in prompts if prompt is not None]
        found = iter(self._generator(decoding.max_new_tokens).sample(asked, decoding.sampling))
        return ["" if prompt is None else decoding.cut(next(found)[0].text) for prompt in prompts]

    def losses(self, question: Question | None, answers: Sequence[str]) -> list[tuple[float, bool]]:
        """Return (loss, whether greedy decoding gives it) of each answer.

        The loss is the mean cross-entropy of its tokens, the end token included; infinite for a question that cannot
        be asked (None: it could not even be read).
        """
        prompt = None if question is None else self.prompt(question)
        if prompt is None:
            return [(float("inf"), False)] * len(answers)
        texts = [answer.strip() for answer in answers]
        longest = max(len(self.template.tokenizer(text)["input_ids"]) for text in texts) + 1
        generator = self._generator(longest)
        (greedy,) = generator.generate([prompt])
        scores = generator.score(prompt, texts)
        return [(-score, text == greedy) for score, text in zip(scores, texts, strict=True)]

    def prompt(self, question: Question) -> Prompt | None:
        """Prepare one question; None, logged and counted, where it cannot be asked."""
        text, count = question.text, len(question.images)
        if text.count(IMAGE_PLACEHOLDER) != count:
            text = number_images(text)
        tiling = limit_tiles(self.tiling, question.max_tiles, "each", count)
        try:
            return Processor(self.template, tiling)(text, question.images, question.is_video, question.key)
        except (SampleError, TokenMismatchError) as error:
            self.skip(question.key, error)
            return None

    def read(self, path: Path) -> tuple[list[Image.Image], bool]:
        """Read a picture, or the frames of a video; returns (pictures, whether it is a video).

        Raises:
            SampleError: the file is missing or broken.
        """
        if path.suffix.lower() in FRAME_SUFFIXES:
            return [read_image(path)], False
        return read_video(path, self.cfg.num_frames), True

    def skip(self, key: str, error: Exception) -> None:
        """Log and count a question that cannot be asked."""
        self.num_skipped += 1
        logger.warning("%s answered with nothing (%d so far): %s", key, self.num_skipped, error)

    def _generator(self, max_new_tokens: int) -> Generator:
        return Generator(self.model, self.template, max_new_tokens, self.cfg.batch_size)
